"""Blobs on disk and the plan of fetching them."""

import random
from pathlib import Path

import pytest

from daemon.rounds.blobs.fetch import (
    LATE_FACTOR,
    LATE_S,
    MAX_TOO_EARLY,
    STALL_S,
    UNKNOWN_PACE_S,
    WINDOW_CHUNKS,
    BlobFetcher,
    FetchRequest,
)
from daemon.rounds.blobs.pace import Pace
from daemon.rounds.blobs.store import KEPT_STATES, BlobMissingError, BlobStore, Use
from ml.state.blob import Blob
from protocol.errors import VerificationError
from protocol.identity import PeerId
from protocol.merkle import CHUNK_BYTES, leaves_of, merkle_root

ONE, TWO = PeerId("one"), PeerId("two")
DATA = random.Random(1).randbytes(2 * CHUNK_BYTES) + b"the rest"
CHUNKS = [DATA[:CHUNK_BYTES], DATA[CHUNK_BYTES : 2 * CHUNK_BYTES], DATA[2 * CHUNK_BYTES :]]
LEAVES = tuple(leaves_of(CHUNKS))
ROOT = merkle_root(LEAVES)
ENOUGH = 1 << 30


def write_chunk(store: BlobStore, root: bytes, index: int, data: bytes) -> bool:
    chunk = store.begin_chunk(root, index, data)
    if chunk is None:
        return store.has_whole(root)
    try:
        chunk.write()
    except VerificationError:
        store.end_chunk(chunk, is_written=False)
        raise
    return store.end_chunk(chunk, is_written=True)


class TestStore:
    def test_chunks_in_any_order_make_the_file(self, tmp_path: Path) -> None:
        with BlobStore(tmp_path) as store:
            store.begin(ROOT, len(DATA), LEAVES, ENOUGH, Use.UPDATE)
            assert not write_chunk(store, ROOT, 2, CHUNKS[2])
            assert not write_chunk(store, ROOT, 0, CHUNKS[0])
            assert not store.has_whole(ROOT)
            assert store.missing(ROOT) == {1}
            assert write_chunk(store, ROOT, 1, CHUNKS[1])
            assert store.path(ROOT).read_bytes() == DATA
            assert store.read_chunk(ROOT, 2) == b"the rest"

    def test_wrong_chunk_is_refused_and_stays_missing(self, tmp_path: Path) -> None:
        flipped = bytes([CHUNKS[0][0] ^ 1]) + CHUNKS[0][1:]
        with BlobStore(tmp_path) as store:
            store.begin(ROOT, len(DATA), LEAVES, ENOUGH, Use.UPDATE)
            for bad in (flipped, CHUNKS[0][:-1], b"", CHUNKS[1]):
                with pytest.raises(VerificationError, match="chunk 0"):
                    write_chunk(store, ROOT, 0, bad)
            with pytest.raises(VerificationError, match="chunk 3"):
                write_chunk(store, ROOT, 3, b"")
            assert store.missing(ROOT) == {0, 1, 2}

    def test_blob_that_is_discarded_while_a_chunk_is_written_spoils_no_other_file(
        self, tmp_path: Path
    ) -> None:
        with BlobStore(tmp_path) as store:
            store.begin(ROOT, len(DATA), LEAVES, ENOUGH, Use.UPDATE)
            chunk = store.begin_chunk(ROOT, 0, CHUNKS[0])
            assert chunk is not None
            store.discard(ROOT, Use.UPDATE)
            other = tmp_path / "other"
            with other.open("w+b"):
                chunk.write()
                assert not store.end_chunk(chunk, is_written=True)
            assert other.read_bytes() == b""
            store.begin(ROOT, len(DATA), LEAVES, ENOUGH, Use.UPDATE)
            assert store.missing(ROOT) == {0, 1, 2}

    def test_size_is_what_the_chunks_are_and_not_what_was_claimed(self, tmp_path: Path) -> None:
        with BlobStore(tmp_path) as store:
            store.begin(ROOT, len(DATA) - 3, LEAVES, ENOUGH, Use.UPDATE)
            for index, chunk in enumerate(CHUNKS):
                write_chunk(store, ROOT, index, chunk)
            assert store.size_bytes(ROOT) == len(DATA)
            assert store.read_chunk(ROOT, 2) == CHUNKS[2]

    @pytest.mark.parametrize(
        ("size", "leaves", "most", "text"),
        [
            (len(DATA), LEAVES, len(DATA) - 1, "at most"),
            (0, (), ENOUGH, "blob of 0 bytes"),
            (-1, LEAVES, ENOUGH, "blob of -1 bytes"),
            (1 << 62, LEAVES, 1 << 63, "chunks"),
            (len(DATA), LEAVES[:2], ENOUGH, "2 leaves"),
            (len(DATA), (*LEAVES[:2], b"x" * 32), ENOUGH, "do not belong"),
            (len(DATA), (*LEAVES[:2], b"short"), ENOUGH, "do not belong"),
        ],
    )
    def test_impossible_blob_is_refused_before_a_file_is_made(
        self, tmp_path: Path, size: int, leaves: tuple[bytes, ...], most: int, text: str
    ) -> None:
        with BlobStore(tmp_path) as store:
            with pytest.raises(VerificationError, match=text):
                store.begin(ROOT, size, leaves, most, Use.UPDATE)
            assert list(tmp_path.iterdir()) == []

    def test_states_that_are_long_past_are_let_go(self, tmp_path: Path) -> None:
        roots = []
        with BlobStore(tmp_path / "spool") as store:
            for number in range(KEPT_STATES + 2):
                path = tmp_path / f"state-{number}"
                path.write_bytes(path.name.encode())
                leaves = tuple(leaves_of([path.name.encode()]))
                roots.append(merkle_root(leaves))
                blob = Blob(path=str(path), size_bytes=7, root=roots[-1], leaves=leaves)
                store.add_state(blob)
                store.add_state(blob)
            assert [store.has_whole(root) for root in roots] == [False] * 2 + [True] * KEPT_STATES

    def test_local_file_that_its_owner_has_unlinked_is_fetched_when_it_is_wanted(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "state"
        path.write_bytes(DATA)
        with BlobStore(tmp_path / "spool") as store:
            store.add_local(Blob(path=str(path), size_bytes=len(DATA), root=ROOT, leaves=LEAVES))
            store.begin(ROOT, len(DATA), LEAVES, ENOUGH, Use.UPDATE)
            assert store.has_whole(ROOT)
            path.unlink()
            assert store.read_chunk(ROOT, 2) == b"the rest"
            store.begin(ROOT, len(DATA), LEAVES, ENOUGH, Use.UPDATE)
            assert store.missing(ROOT) == {0, 1, 2}

    def test_local_file_is_served_after_its_owner_unlinked_it(self, tmp_path: Path) -> None:
        path = tmp_path / "mine"
        path.write_bytes(DATA)
        with BlobStore(tmp_path / "spool") as store:
            store.add_local(Blob(path=str(path), size_bytes=len(DATA), root=ROOT, leaves=LEAVES))
            path.unlink()
            assert store.read_chunk(ROOT, 1) == CHUNKS[1]

    def test_what_is_not_there_is_named(self, tmp_path: Path) -> None:
        with BlobStore(tmp_path) as store:
            with pytest.raises(BlobMissingError, match="is not here"):
                store.read_chunk(ROOT, 0)
            store.begin(ROOT, len(DATA), LEAVES, ENOUGH, Use.UPDATE)
            with pytest.raises(BlobMissingError, match="chunk 0"):
                store.read_chunk(ROOT, 0)

    def test_leaving_deletes_what_came_in_and_keeps_what_is_local(self, tmp_path: Path) -> None:
        mine = tmp_path / "mine"
        mine.write_bytes(DATA)
        spool = tmp_path / "spool"
        with BlobStore(spool) as store:
            store.begin(ROOT, len(DATA), LEAVES, ENOUGH, Use.UPDATE)
            other = merkle_root(LEAVES[:1])
            store.add_local(
                Blob(path=str(mine), size_bytes=CHUNK_BYTES, root=other, leaves=LEAVES[:1])
            )
            assert len(list(spool.iterdir())) == 1
        assert list(spool.iterdir()) == []
        assert mine.exists()


class TestFetcher:
    def test_chunks_are_shared_among_sources_within_their_windows(self) -> None:
        fetcher = BlobFetcher(Pace(0.0))
        fetcher.want(ROOT, range(100))
        fetcher.add_source(ROOT, ONE, 0.0)
        fetcher.add_source(ROOT, TWO, 0.0)
        requests = fetcher.requests(0.0)
        asked = {request.peer: request.indexes for request in requests}
        assert {peer: len(indexes) for peer, indexes in asked.items()} == {
            ONE: WINDOW_CHUNKS,
            TWO: WINDOW_CHUNKS,
        }
        assert sorted(asked[ONE] + asked[TWO]) == list(range(2 * WINDOW_CHUNKS))
        assert fetcher.requests(0.0) == []

    def test_each_chunk_that_comes_makes_room_for_the_next(self) -> None:
        fetcher = BlobFetcher(Pace(0.0))
        fetcher.want(ROOT, range(100))
        fetcher.add_source(ROOT, ONE, 0.0)
        fetcher.requests(0.0)
        fetcher.received(ONE, ROOT, 0, CHUNK_BYTES, 1.0)
        assert fetcher.requests(1.0) == [FetchRequest(ONE, ROOT, (WINDOW_CHUNKS,))]

    def test_what_a_lost_source_owed_is_asked_of_another(self) -> None:
        fetcher = BlobFetcher(Pace(0.0))
        fetcher.want(ROOT, range(3))
        fetcher.add_source(ROOT, ONE, 0.0)
        assert fetcher.requests(0.0) == [FetchRequest(ONE, ROOT, (0, 1, 2))]
        fetcher.drop_peer(ONE)
        assert not fetcher.has_source(ROOT)
        assert fetcher.requests(0.0) == []
        fetcher.add_source(ROOT, TWO, 1.0)
        assert fetcher.requests(1.0) == [FetchRequest(TWO, ROOT, (0, 1, 2))]

    def test_what_comes_unasked_is_not_asked_for(self) -> None:
        fetcher = BlobFetcher(Pace(0.0))
        fetcher.want(ROOT, range(100))
        fetcher.add_source(ROOT, ONE, 0.0)
        fetcher.expect(ROOT, ONE, 3, 0.0)
        assert fetcher.requests(0.0) == [FetchRequest(ONE, ROOT, tuple(range(3, WINDOW_CHUNKS)))]
        fetcher.received(ONE, ROOT, 0, CHUNK_BYTES, 1.0)
        assert fetcher.requests(1.0) == [FetchRequest(ONE, ROOT, (WINDOW_CHUNKS,))]

    def test_what_came_before_it_was_known_is_asked_for(self) -> None:
        fetcher = BlobFetcher(Pace(0.0))
        for index in (0, 2):
            fetcher.too_early(ONE, ROOT, index)
        fetcher.too_early(TWO, ROOT, 1)
        fetcher.want(ROOT, range(3))
        fetcher.add_source(ROOT, ONE, 0.0)
        fetcher.expect(ROOT, ONE, 3, 0.0)
        assert fetcher.requests(0.0) == [FetchRequest(ONE, ROOT, (0, 2))]

    def test_little_is_remembered_of_what_came_too_early_and_of_each_peer_alone(self) -> None:
        fetcher = BlobFetcher(Pace(0.0))
        fetcher.too_early(ONE, ROOT, 0)
        for index in range(10 * MAX_TOO_EARLY):
            fetcher.too_early(TWO, b"rubbish", index)
        fetcher.want(ROOT, range(1))
        fetcher.add_source(ROOT, ONE, 0.0)
        fetcher.expect(ROOT, ONE, 1, 0.0)
        assert fetcher.requests(0.0) == [FetchRequest(ONE, ROOT, (0,))]

    def test_who_does_not_send_what_was_to_come_unasked_is_dropped(self) -> None:
        fetcher = BlobFetcher(Pace(0.0))
        fetcher.want(ROOT, range(2))
        fetcher.add_source(ROOT, ONE, 0.0)
        fetcher.expect(ROOT, ONE, 2, 0.0)
        assert fetcher.get_timer() == STALL_S
        fetcher.handle_timer(STALL_S)
        assert not fetcher.has_source(ROOT)
        fetcher.add_source(ROOT, TWO, STALL_S)
        assert fetcher.requests(STALL_S) == [FetchRequest(TWO, ROOT, (0, 1))]

    def test_no_more_is_expected_than_could_be_asked_for(self) -> None:
        fetcher = BlobFetcher(Pace(0.0))
        for root in (b"one", b"two"):
            fetcher.want(root, range(WINDOW_CHUNKS))
            fetcher.add_source(root, ONE, 0.0)
            fetcher.expect(root, ONE, WINDOW_CHUNKS, 0.0)
        assert fetcher.requests(0.0) == []
        for index in range(WINDOW_CHUNKS):
            fetcher.received(ONE, b"one", index, CHUNK_BYTES, 1.0)
        assert fetcher.requests(1.0) == [FetchRequest(ONE, b"two", tuple(range(WINDOW_CHUNKS)))]

    def test_what_comes_unasked_takes_its_part_of_the_pace(self) -> None:
        fetcher = BlobFetcher(Pace(0.0, 2 * CHUNK_BYTES))
        fetcher.want(ROOT, range(100))
        fetcher.add_source(ROOT, ONE, 0.0)
        fetcher.expect(ROOT, ONE, 2, 0.0)
        assert fetcher.requests(0.0) == [FetchRequest(ONE, ROOT, (2,))]

    def test_source_that_stalls_is_dropped_and_one_that_delivers_is_not(self) -> None:
        fetcher = BlobFetcher(Pace(0.0))
        fetcher.want(ROOT, range(20))
        fetcher.add_source(ROOT, ONE, 0.0)
        fetcher.add_source(ROOT, TWO, 0.0)
        fetcher.requests(0.0)
        assert fetcher.get_timer() == STALL_S
        fetcher.received(TWO, ROOT, 1, CHUNK_BYTES, STALL_S - 1)
        fetcher.handle_timer(STALL_S)
        requests = fetcher.requests(STALL_S)
        assert {request.peer for request in requests} == {TWO}

    def test_late_chunks_are_asked_of_a_quick_source_too_one_by_one(self) -> None:
        fetcher = BlobFetcher(Pace(0.0))
        fetcher.want(ROOT, range(4))
        fetcher.add_source(ROOT, ONE, 0.0)
        fetcher.add_source(ROOT, TWO, 0.0)
        assert fetcher.requests(0.0) == [
            FetchRequest(ONE, ROOT, (0, 2)),
            FetchRequest(TWO, ROOT, (1, 3)),
        ]
        fetcher.received(TWO, ROOT, 1, CHUNK_BYTES, 0.1)
        late = LATE_S + LATE_FACTOR * 0.1
        assert fetcher.requests(late) == [], "it has something to deliver itself"
        fetcher.received(TWO, ROOT, 3, CHUNK_BYTES, 0.1)
        assert fetcher.get_timer() == late
        assert fetcher.requests(late - 0.01) == []
        assert fetcher.requests(late) == [FetchRequest(TWO, ROOT, (2,))]
        assert fetcher.requests(late) == []
        fetcher.received(TWO, ROOT, 2, CHUNK_BYTES, late + 0.1)
        assert fetcher.requests(late + 0.1) == [FetchRequest(TWO, ROOT, (0,))]
        fetcher.received(ONE, ROOT, 0, CHUNK_BYTES, late + 0.2)
        fetcher.received(TWO, ROOT, 0, CHUNK_BYTES, late + 0.3)
        assert fetcher.get_timer() is None

    def test_source_that_gave_nothing_when_another_did_is_waited_for_no_more(self) -> None:
        fetcher = BlobFetcher(Pace(0.0))
        late = LATE_S + LATE_FACTOR * UNKNOWN_PACE_S
        for root, asked_again_at in ((b"one", late), (b"two", 101.0)):
            begins = asked_again_at - late if root == b"one" else asked_again_at
            fetcher.want(root, range(1))
            fetcher.add_source(root, ONE, begins)
            assert fetcher.requests(begins) == [FetchRequest(ONE, root, (0,))]
            fetcher.add_source(root, TWO, begins)
            assert fetcher.requests(asked_again_at) == [FetchRequest(TWO, root, (0,))]
            fetcher.received(TWO, root, 0, CHUNK_BYTES, asked_again_at)
            assert fetcher.overtaken == {ONE}
        fetcher.want(b"three", range(1))
        fetcher.add_source(b"three", ONE, 200.0)
        fetcher.requests(200.0)
        fetcher.received(ONE, b"three", 0, CHUNK_BYTES, 201.0)
        assert not fetcher.overtaken, "it delivers again"

    def test_chunk_that_was_not_asked_for_says_nothing_about_who_was(self) -> None:
        fetcher = BlobFetcher(Pace(0.0))
        fetcher.want(ROOT, range(1))
        fetcher.add_source(ROOT, ONE, 0.0)
        fetcher.requests(0.0)
        fetcher.received(TWO, ROOT, 0, CHUNK_BYTES, 0.1)
        assert not fetcher.overtaken

    def test_source_that_is_no_quicker_is_not_asked_for_what_is_under_way(self) -> None:
        fetcher = BlobFetcher(Pace(0.0))
        fetcher.want(ROOT, range(2))
        fetcher.add_source(ROOT, ONE, 0.0)
        fetcher.add_source(ROOT, TWO, 0.0)
        fetcher.requests(0.0)
        fetcher.received(TWO, ROOT, 1, CHUNK_BYTES, 4.0)
        assert fetcher.requests(8.0) == []

    def test_source_that_has_delivered_nothing_yet_is_given_some_credit(self) -> None:
        fetcher = BlobFetcher(Pace(0.0))
        fetcher.want(ROOT, range(1))
        fetcher.add_source(ROOT, ONE, 0.0)
        fetcher.requests(0.0)
        fetcher.add_source(ROOT, TWO, 1.0)
        late = LATE_S + LATE_FACTOR * UNKNOWN_PACE_S
        assert fetcher.get_timer() == late
        assert fetcher.requests(late) == [FetchRequest(TWO, ROOT, (0,))]

    def test_chunk_that_two_were_asked_for_waits_again_when_both_are_gone(self) -> None:
        fetcher = BlobFetcher(Pace(0.0))
        fetcher.want(ROOT, range(1))
        for source in (ONE, TWO):
            fetcher.add_source(ROOT, source, 0.0)
            fetcher.requests(0.0)
        late = LATE_S + LATE_FACTOR * UNKNOWN_PACE_S
        fetcher.requests(late)
        fetcher.drop_peer(ONE)
        assert fetcher.requests(late) == [], "it is still asked of the other"
        fetcher.drop_peer(TWO)
        fetcher.add_source(ROOT, ONE, late)
        assert fetcher.requests(late) == [FetchRequest(ONE, ROOT, (0,))]

    def test_source_that_was_added_long_ago_gets_its_time_when_it_is_asked(self) -> None:
        fetcher = BlobFetcher(Pace(0.0))
        fetcher.want(ROOT, range(1))
        fetcher.add_source(ROOT, ONE, 0.0)
        fetcher.requests(1000.0)
        fetcher.handle_timer(1000.0)
        assert fetcher.has_source(ROOT)

    def test_cancelled_blob_is_asked_for_no_more(self) -> None:
        fetcher = BlobFetcher(Pace(0.0))
        fetcher.want(ROOT, range(100))
        fetcher.add_source(ROOT, ONE, 0.0)
        fetcher.cancel(ROOT)
        fetcher.received(ONE, ROOT, 0, CHUNK_BYTES, 0.0)
        assert fetcher.requests(0.0) == []
        assert fetcher.get_timer() is None

    def test_no_more_is_asked_for_than_the_pace_allows(self) -> None:
        fetcher = BlobFetcher(Pace(0.0, 2 * CHUNK_BYTES))
        fetcher.want(ROOT, range(100))
        fetcher.add_source(ROOT, ONE, 0.0)
        assert fetcher.requests(0.0) == [FetchRequest(ONE, ROOT, (0, 1, 2))]
        assert fetcher.requests(0.0) == []
        assert fetcher.get_timer() == 0.5
        assert fetcher.requests(0.5) == [FetchRequest(ONE, ROOT, (3,))]
        fetcher.received(ONE, ROOT, 0, 0, 0.5)
        assert fetcher.requests(0.5) == [FetchRequest(ONE, ROOT, (4,))], "the first was empty"

    def test_what_is_late_waits_for_the_pace_too(self) -> None:
        fetcher = BlobFetcher(Pace(0.0, CHUNK_BYTES / 100))
        fetcher.want(ROOT, range(1))
        fetcher.add_source(ROOT, ONE, 0.0)
        fetcher.requests(0.0)
        fetcher.add_source(ROOT, TWO, 0.0)
        late = LATE_S + LATE_FACTOR * UNKNOWN_PACE_S
        assert fetcher.requests(late) == []
        timer = fetcher.get_timer()
        assert timer == STALL_S
