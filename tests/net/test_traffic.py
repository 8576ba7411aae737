"""How many bytes moved between two looks, while peers come and go."""

from daemon.link_status import LinkStatus
from daemon.status import PathKind
from daemon.traffic import Traffic, TrafficMeter
from protocol.identity import PeerId

ADA, BOB = PeerId("a" * 52), PeerId("b" * 52)


def link(peer_id: PeerId, sent: int, received: int) -> LinkStatus:
    return LinkStatus(
        peer_id=peer_id,
        name="",
        kind=PathKind.DIRECT,
        address="",
        reason="",
        is_live=True,
        rtt_ms=None,
        bytes_sent=sent,
        bytes_received=received,
    )


def test_each_look_tells_what_came_on_top_whoever_comes_and_goes() -> None:
    links = [link(ADA, 100, 1)]
    meter = TrafficMeter(lambda: links)
    assert meter.take() == Traffic(0, 0)
    links[:] = [link(ADA, 150, 2), link(BOB, 7, 8)]
    assert meter.take() == Traffic(57, 9)
    links[:] = [link(BOB, 9, 8)]
    assert meter.take() == Traffic(2, 0)
    links[:] = [link(ADA, 120, 3), link(BOB, 5, 5)]
    assert meter.take() == Traffic(125, 8)
