"""When a peer makes further punched paths beside the first, and how many with one attempt."""

import math
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import pytest

from protocol.codec import decode, encode
from protocol.errors import RemoteProtocolError
from protocol.peers.signal_messages import (
    MAX_LANES_AT_ONCE,
    LanesAnswer,
    LanesOffer,
    NextPort,
    PunchAnswer,
    PunchEnd,
    PunchOffer,
    SignalBody,
)
from tests.eventually import eventually
from tests.net.paths.punched_scene import Attempt, Scene, answer_next_offer, end, seeking

FIXED = end(NextPort.FIXED)


@asynccontextmanager
async def with_one_path(next_port: NextPort = NextPort.FIXED) -> AsyncIterator[Scene]:
    async with seeking(next_port=next_port) as scene:
        scene.find(await answer_next_offer(scene))
        yield scene


async def answer_lanes(scene: Scene, count: int) -> list[Attempt]:
    """Take part in so many of what the seeker proposes; its attempts."""
    offer = await scene.hear_lanes_offer()
    before = len(scene.puncher.made)
    await scene.say(LanesAnswer(offer.attempt, (FIXED,) * count))
    expected = before + min(count, len(offer.ends))
    await eventually(lambda: len(scene.puncher.made) == expected)
    return scene.puncher.made[before:]


async def test_all_that_lack_are_proposed_at_once_and_then_no_more() -> None:
    async with with_one_path() as scene:
        scene.want(6)
        attempts = await answer_lanes(scene, MAX_LANES_AT_ONCE)
        assert len(attempts) == 5
        scene.find(*attempts)
        scene.want(7)
        assert len((await scene.hear_lanes_offer()).ends) == 1
        assert not scene.wish.failures


async def test_who_answers_with_fewer_is_asked_for_the_rest() -> None:
    async with with_one_path() as scene:
        scene.want(4)
        scene.find(*await answer_lanes(scene, 2))
        assert len((await scene.hear_lanes_offer()).ends) == 1


async def test_after_an_attempt_in_vain_one_alone_is_proposed_until_it_comes_about() -> None:
    async with with_one_path() as scene:
        scene.want(8)
        assert await answer_lanes(scene, 0) == []
        attempts = await answer_lanes(scene, 7)
        assert len(attempts) == 1
        scene.find(*attempts)
        assert len((await scene.hear_lanes_offer()).ends) == 6
        assert not scene.wish.failures


@pytest.mark.parametrize(("wanted", "made"), [(1, 0), (3, 2), (20, 4)])
async def test_peer_that_offers_many_gets_no_more_than_are_wanted_here(
    wanted: int, made: int
) -> None:
    async with with_one_path() as scene:
        scene.wish.not_before = math.inf  # It does not offer itself.
        scene.want(wanted)
        await scene.say(LanesOffer(bytes(16), (FIXED,) * 4))
        answer = await scene.hear()
        assert isinstance(answer, LanesAnswer)
        assert len(answer.ends) == made
        await eventually(lambda: len(scene.puncher.made) == 1 + made)


async def test_places_bound_what_is_made_and_are_given_back() -> None:
    async with with_one_path() as scene:
        places = scene.puncher.lanes
        with ExitStack() as stack:
            while places.room(beside=1) > 2:
                stack.enter_context(places.taken())
            scene.want(8)
            attempts = await answer_lanes(scene, 8)
            assert len(attempts) == 2
            scene.find(*attempts)
            await eventually(lambda: places.room(beside=1) == 0)
            await scene.say(LanesOffer(bytes(16), (FIXED,) * 4))
            assert await scene.hear() == LanesAnswer(bytes(16), ())
            for attempt in attempts:
                attempt.give_up("it broke")
            await eventually(lambda: places.room(beside=1) == 2)


async def test_ends_whose_next_port_is_counted_on_are_offered_one_at_a_time() -> None:
    async with with_one_path(NextPort.SEQUENTIAL) as scene:
        scene.want(5)
        assert len((await scene.hear_lanes_offer()).ends) == 1


async def test_path_that_is_lost_while_more_are_wanted_is_looked_for_as_ever() -> None:
    async with with_one_path() as scene:
        scene.want(2)
        assert await answer_lanes(scene, 0) == []
        scene.puncher.made[0].give_up("it broke")
        scene.wish.paths = frozenset()
        scene.wish.notify()
        scene.find(await answer_next_offer(scene))


async def test_peer_that_has_lost_its_end_is_answered_while_more_are_made() -> None:
    async with with_one_path() as scene:
        scene.want(3)
        await scene.hear_lanes_offer()
        await scene.say(PunchOffer(bytes(16), FIXED, has_heavy_slot=True))
        assert isinstance(await scene.hear(), PunchAnswer)


def test_message_has_no_more_ends_than_are_made_at_once() -> None:
    def passed(ends: tuple[PunchEnd, ...]) -> SignalBody:
        body: SignalBody = decode(encode(LanesOffer(bytes(16), ends)), SignalBody)
        return body

    assert passed((FIXED,) * MAX_LANES_AT_ONCE) == LanesOffer(
        bytes(16), (FIXED,) * MAX_LANES_AT_ONCE
    )
    with pytest.raises(RemoteProtocolError):
        passed((FIXED,) * (MAX_LANES_AT_ONCE + 1))
