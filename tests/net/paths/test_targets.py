"""How often an address is sent to that never answers, whoever names it. With a clock of its own."""

import asyncio

from daemon.net.paths.targets import AGAIN_S, SYNS_PER_S, TRIES, Targets, is_known_place
from transport.clock import Clock

VICTIM, OTHER = "198.51.100.9", "203.0.113.1"


class MovedClock(Clock):
    now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


def test_address_that_never_answers_is_tried_once_in_half_a_minute_in_the_long_run() -> None:
    clock = MovedClock()
    targets = Targets(clock)
    tries = 0
    for _ in range(36_000):
        if targets.wait_s([VICTIM]) == 0.0:
            targets.begin([VICTIM])
            tries += 1
        clock.now_s += 0.1
    assert 3600 / AGAIN_S <= tries <= 3600 / AGAIN_S + TRIES


def test_another_address_and_one_that_answered_are_not_held_back() -> None:
    clock = MovedClock()
    targets = Targets(clock)
    for _ in range(int(TRIES)):
        targets.begin([VICTIM, OTHER])
    assert targets.wait_s([VICTIM]) == AGAIN_S
    targets.answered(OTHER)
    assert targets.wait_s([OTHER]) == 0.0
    assert targets.wait_s([OTHER, VICTIM]) > 0


def test_one_network_of_ipv6_is_one_address() -> None:
    clock = MovedClock()
    targets = Targets(clock)
    for last in range(int(TRIES)):
        targets.begin([f"2001:db8::{last}"])
    assert targets.wait_s(["2001:db8::ffff"]) > 0


async def test_connections_to_one_address_wait_for_their_turn_and_others_do_not() -> None:
    targets = Targets(clock := MovedClock())
    await targets.until_may_connect(VICTIM, SYNS_PER_S)
    waiting = asyncio.ensure_future(targets.until_may_connect(VICTIM, 1.0))
    await targets.until_may_connect(OTHER, SYNS_PER_S)
    await asyncio.sleep(0)
    assert not waiting.done()
    clock.now_s += 1.0
    async with asyncio.timeout(90):
        await waiting


def test_where_a_peer_is_known_to_be() -> None:
    seen = {OTHER, "2001:db8:1::1"}
    assert is_known_place(OTHER, seen, "")
    assert is_known_place("2001:db8:1::ffff", seen, "")
    assert not is_known_place("2001:db8:2::1", seen, "")
    assert not is_known_place(VICTIM, seen, OTHER)
    assert is_known_place("192.168.1.7", seen, OTHER)
    assert not is_known_place("192.168.1.7", seen, VICTIM)
    assert not is_known_place("192.168.1.7", seen, "")
