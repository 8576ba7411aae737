"""When a peer takes part in an attempt with many ports, and when it puts it off."""

import pytest

from daemon.net.path_kind import PathKind
from daemon.net.paths.path import PathWish
from protocol.errors import TransportError
from protocol.peers.signal_messages import (
    NextPort,
    NoOtherMachineError,
    PunchAnswer,
    PunchDeclined,
    PunchOffer,
    check_punch_end,
)
from protocol.statements.nat_behavior import Dependence
from protocol.statements.nat_summary import NatSummary, TransportSummary
from tests.eventually import eventually
from tests.net.paths.punched_scene import HIGH, OTHER, DirectPath, end, seeking


async def test_peer_that_keeps_its_slot_is_answered_and_the_own_one_is_taken() -> None:
    async with seeking() as scene:
        await scene.offer()
        assert isinstance(await scene.hear(), PunchAnswer)
        await eventually(lambda: len(scene.puncher.made) == 1)
        assert not scene.slot.is_free
        scene.find(scene.puncher.made[0])
        await eventually(lambda: scene.slot.is_free)
        assert not scene.wish.failures


async def test_peer_that_keeps_no_slot_is_put_off_and_gets_an_offer_at_once() -> None:
    async with seeking() as scene:
        await scene.offer(has_heavy_slot=False)
        await scene.hear_put_off("many ports")
        offer = await scene.hear_offer()
        assert offer.has_heavy_slot
        assert not scene.puncher.made


async def test_peer_is_put_off_while_the_slot_is_taken_and_then_gets_an_offer() -> None:
    async with seeking() as scene:
        scene.slot.take(OTHER)
        await scene.offer()
        await scene.hear_put_off("another attempt")
        await scene.offer()  # It may ask again.
        await scene.hear_put_off("another attempt")
        scene.slot.release(OTHER)
        assert (await scene.hear_offer()).has_heavy_slot


async def test_being_put_off_is_no_failure_and_frees_the_slot() -> None:
    async with seeking(next_port=NextPort.RANDOM) as scene:
        offer = await scene.hear_offer()
        assert offer.has_heavy_slot
        await scene.say(PunchDeclined(offer.attempt, "busy", offers_later=True))
        await eventually(lambda: scene.slot.is_free)
        await scene.say(PunchOffer(bytes(16), end(NextPort.FIXED), has_heavy_slot=True))
        assert isinstance(await scene.hear(), PunchAnswer)
        assert not scene.wish.failures


async def test_silent_peer_keeps_the_slot_no_longer_than_an_answer_takes() -> None:
    async with seeking(next_port=NextPort.RANDOM) as scene:
        await scene.hear_offer()
        assert not scene.slot.is_free
        await eventually(lambda: scene.slot.is_free)
        assert "did not answer" in scene.wish.failures[PathKind.PUNCHED]


async def test_many_ports_wait_for_dialling_where_it_is_likely_to_succeed() -> None:
    lets_in = TransportSummary(reachable=True, filtering=Dependence.ENDPOINT_INDEPENDENT)
    async with seeking(nat=NatSummary(public_host="203.0.113.2", udp=lets_in)) as scene:
        await scene.offer()
        await scene.hear_put_off("direct path soon")
        scene.find(DirectPath())
        await scene.offer()
        await scene.hear_put_off("there is a direct path")
        assert not scene.puncher.made


async def test_attempt_with_many_ports_ends_when_there_is_a_direct_path() -> None:
    async with seeking() as scene:
        await scene.offer()
        assert isinstance(await scene.hear(), PunchAnswer)
        await eventually(lambda: len(scene.puncher.made) == 1)
        scene.find(DirectPath())
        await eventually(lambda: scene.slot.is_free)
        assert scene.puncher.made[0].has_ended
        assert not scene.wish.failures


async def test_offer_right_after_an_attempt_with_many_ports_is_put_off() -> None:
    async with seeking() as scene:
        await scene.offer()
        assert isinstance(await scene.hear(), PunchAnswer)
        await scene.offer()
        await scene.hear_put_off("a moment ago")
        assert len(scene.puncher.made) == 1


@pytest.mark.parametrize("has_heavy_slot", [True, False])
async def test_attempt_with_one_port_needs_no_slot(has_heavy_slot: bool) -> None:
    async with seeking() as scene:
        scene.slot.take(OTHER)
        await scene.say(PunchOffer(bytes(16), end(NextPort.FIXED), has_heavy_slot))
        assert isinstance(await scene.hear(), PunchAnswer)
        await eventually(lambda: len(scene.puncher.made) == 1)


def test_log_tells_of_no_punched_path_where_nobody_needs_one() -> None:
    wish = PathWish(HIGH.record())
    with pytest.raises(NoOtherMachineError) as same_machine:
        check_punch_end(end(NextPort.FIXED, "127.0.0.1:5000"))
    nobody_there = TransportError("the peer did not say hello")
    assert not wish.is_news(PathKind.PUNCHED, same_machine.value)
    assert wish.is_news(PathKind.PUNCHED, nobody_there)
    wish.note_failure(PathKind.PUNCHED, str(nobody_there))
    assert not wish.is_news(PathKind.PUNCHED, nobody_there)
    assert wish.is_news(PathKind.ICE, nobody_there)
    wish.paths |= {DirectPath()}
    assert not wish.is_news(PathKind.ICE, nobody_there)
