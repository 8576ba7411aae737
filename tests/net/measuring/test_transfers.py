"""Measured transfers and pings without a network: joined and timed by hand."""

import pytest

from daemon.net.measuring.echoes import MAX_WAITING, REPLY_BURST, Echoes
from daemon.net.measuring.transfer_sink import BUDGET_BYTES, IDLE_S, MAX_TRANSFERS, TransferSink
from daemon.net.measuring.transfer_source import (
    LONGEST_SENDING_S,
    REPORT_S,
    SourceState,
    TransferSource,
)
from protocol.errors import RemoteProtocolError, TransportError
from protocol.identity import PeerId
from protocol.merkle import CHUNK_BYTES
from protocol.peers.chunk_frame import encode_chunk
from protocol.peers.measure_messages import (
    MAX_TRANSFER_BYTES,
    MeasuredPath,
    TransferAccepted,
    TransferRefused,
    TransferReport,
)

PEER, OTHER, THIRD = PeerId("a" * 52), PeerId("b" * 52), PeerId("c" * 52)
SIZE = 2 * CHUNK_BYTES + 5


def source(size_bytes: int = SIZE) -> TransferSource:
    return TransferSource(MeasuredPath.RELAY, size_bytes)


def accepted(sink: TransferSink, size_bytes: int = SIZE, peer: PeerId = PEER) -> TransferSource:
    """A transfer that has begun, at the time 0."""
    sending = source(size_bytes)
    sending.receive(sink.offered(peer, sending.offer, 0.0), 0.0)
    assert sending.state is SourceState.SENDING
    sending.begin(0.0)
    return sending


def test_figure_is_of_what_arrived_until_it_was_confirmed() -> None:
    sink = TransferSink()
    sending = accepted(sink)
    reports = []
    for _ in range(3):
        chunk = sending.take_chunk()
        assert sink.is_chunk(PEER, chunk)
        reports.append(sink.chunk_came(PEER, chunk, 1.0))
    assert reports[:-1] == [None, None]
    assert reports[-1] is not None
    assert not sending.has_ended
    sending.receive(reports[-1], 4.0)
    assert sending.state is SourceState.REPORTED
    assert (sending.delivered_bytes, sending.seconds) == (SIZE, 4.0)
    assert sink.deadline() is None


def test_chunks_do_not_compress() -> None:
    import zlib

    sending = accepted(TransferSink())
    chunk = sending.take_chunk()
    assert len(zlib.compress(chunk)) >= len(chunk)


def test_when_the_time_is_up_what_was_sent_until_then_counts() -> None:
    sink = TransferSink()
    sending = accepted(sink)
    first = sending.take_chunk()
    assert sending.handle_timer(LONGEST_SENDING_S - 1) is None
    end = sending.handle_timer(LONGEST_SENDING_S)
    assert end is not None
    assert end.size_bytes == CHUNK_BYTES
    assert sink.end_came(PEER, end) is None  # It overtook the chunk.
    report = sink.chunk_came(PEER, first, LONGEST_SENDING_S)
    assert report is not None
    sending.receive(report, LONGEST_SENDING_S + 1)
    assert sending.delivered_bytes == CHUNK_BYTES


def test_without_a_report_a_transfer_fails_in_bounded_time() -> None:
    sending = accepted(TransferSink(), CHUNK_BYTES)
    sending.take_chunk()
    assert not sending.has_ended
    sending.handle_timer(LONGEST_SENDING_S + REPORT_S)
    assert sending.state is SourceState.FAILED
    assert "has not confirmed" in sending.failure


def test_report_of_other_bytes_than_were_sent_is_not_believed() -> None:
    sending = accepted(TransferSink(), CHUNK_BYTES)
    sending.take_chunk()
    for received in (0, CHUNK_BYTES - 1, CHUNK_BYTES + 1):
        sending.receive(TransferReport(sending.offer.measurement, received), 1.0)
    sending.receive(TransferReport(bytes(32), CHUNK_BYTES), 1.0)
    assert sending.state is SourceState.SENT


def test_refusal_is_told_with_its_reason_escaped() -> None:
    sending = source()
    sending.receive(TransferRefused(sending.offer.measurement, "no\x1b[2J"), 0.0)
    assert sending.failure == "the peer refuses: no\\x1b[2J"


def test_one_transfer_from_each_peer_and_few_in_all() -> None:
    sink = TransferSink()
    for peer in (PEER, OTHER)[:MAX_TRANSFERS]:
        accepted(sink, peer=peer)
    old = accepted(sink)
    new = accepted(sink)
    third = sink.offered(THIRD, source().offer, 0.0)
    assert isinstance(third, TransferRefused)
    assert "by others" in third.reason
    assert sink.chunk_came(PEER, old.take_chunk(), 0.0) is None
    assert sink.wanted_path(PEER) is MeasuredPath.RELAY
    assert sink.end_came(PEER, new.cancel()) is not None
    assert isinstance(sink.offered(THIRD, source().offer, 0.0), TransferAccepted)


def test_what_a_peer_may_have_measured_is_bounded_and_grows_again() -> None:
    sink = TransferSink()
    for _ in range(int(BUDGET_BYTES / MAX_TRANSFER_BYTES)):
        assert isinstance(
            sink.offered(PEER, source(MAX_TRANSFER_BYTES).offer, 0.0), TransferAccepted
        )
        sink.forget(PEER)
    answer = sink.offered(PEER, source(2_000_000).offer, 0.0)
    assert isinstance(answer, TransferRefused)
    assert "so much again in 1 s" in answer.reason
    assert isinstance(sink.offered(PEER, source(2_000_000).offer, 1.0), TransferAccepted)
    assert isinstance(sink.offered(OTHER, source().offer, 1.0), TransferAccepted)


def test_more_than_was_offered_or_out_of_order_breaks_the_protocol() -> None:
    sink = TransferSink()
    measurement = accepted(sink, 10).offer.measurement
    with pytest.raises(RemoteProtocolError, match="chunk 0 expected, got 1"):
        sink.chunk_came(PEER, encode_chunk(measurement, 1, bytes(10)), 0.0)
    with pytest.raises(RemoteProtocolError, match="more than the 10 bytes"):
        sink.chunk_came(PEER, encode_chunk(measurement, 0, bytes(11)), 0.0)


def test_chunks_of_others_are_not_taken_and_late_ones_are_swallowed() -> None:
    sink = TransferSink()
    sending = accepted(sink)
    chunk = sending.take_chunk()
    assert not sink.is_chunk(OTHER, chunk)
    assert not sink.is_chunk(PEER, encode_chunk(bytes(32), 0, b"a blob's"))
    sink.forget(PEER)
    assert sink.is_chunk(PEER, chunk)
    assert sink.chunk_came(PEER, chunk, 0.0) is None


def test_transfer_of_which_nothing_comes_is_forgotten() -> None:
    sink = TransferSink()
    sending = accepted(sink)
    sink.chunk_came(PEER, sending.take_chunk(), 10.0)
    assert sink.deadline() == 10.0 + IDLE_S
    sink.expire(10.0 + IDLE_S - 0.1)
    assert sink.wanted_path(PEER) is MeasuredPath.RELAY
    sink.expire(10.0 + IDLE_S)
    assert sink.wanted_path(PEER) is None


def test_reply_answers_only_what_its_peer_was_asked() -> None:
    asking, answering = Echoes(), Echoes()
    echo = asking.ask(PEER, b"padding", 1.0)
    reply = answering.answer(OTHER, echo, 1.0)
    assert reply is not None
    assert asking.take_reply(OTHER, reply, 1.5) is None
    assert asking.take_reply(PEER, reply, 1.5) == 0.5
    assert asking.take_reply(PEER, reply, 1.6) is None


def test_peer_that_pings_too_fast_is_answered_at_a_bounded_rate() -> None:
    answering = Echoes()
    echo = Echoes().ask(PEER, b"", 0.0)
    answers = [answering.answer(OTHER, echo, 0.0) for _ in range(1000)]
    assert sum(answer is not None for answer in answers) == REPLY_BURST
    assert answering.unanswered == 1000 - REPLY_BURST
    assert answering.answer(THIRD, echo, 0.0) is not None
    assert answering.answer(OTHER, echo, 1.0) is not None


def test_pings_that_wait_are_bounded() -> None:
    asking = Echoes()
    echoes = [asking.ask(PEER, b"", 0.0) for _ in range(MAX_WAITING)]
    with pytest.raises(TransportError):
        asking.ask(PEER, b"", 0.0)
    asking.forget(PEER, echoes[0])
    asking.ask(PEER, b"", 0.0)
