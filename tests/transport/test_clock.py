import pytest

from transport.clock import Clock

RIGHT_MS = 1_800_000_000_000
DAY_MS = 24 * 3600 * 1000


class WrongClock(Clock):
    """A machine whose wall clock is off, and is set now and then."""

    def __init__(self, off_ms: int) -> None:
        super().__init__()
        self.off_ms = off_ms
        self.elapsed_ms = 0

    def since_boot_ms(self) -> int:
        return 5000 + self.elapsed_ms

    def own_ms(self) -> int:
        return RIGHT_MS + self.off_ms + self.elapsed_ms

    def hear(self, server: bytes, off_ms: int) -> None:
        right_ms = RIGHT_MS + self.elapsed_ms
        self.server_said(server, right_ms + off_ms, since_boot_ms=self.since_boot_ms())


@pytest.mark.parametrize("off_days", [-20_000, -2, 2, 40])
def test_time_is_the_rendezvous_s_as_soon_as_it_is_known(off_days: int) -> None:
    clock = WrongClock(off_days * DAY_MS)
    assert clock.offset_ms == 0
    clock.hear(b"a", 0)
    assert clock.now_ms() == RIGHT_MS
    assert clock.offset_ms == -off_days * DAY_MS


def test_somebody_who_sets_the_clock_and_a_sleep_change_nothing() -> None:
    clock = WrongClock(0)
    clock.hear(b"a", 0)
    clock.off_ms = -45_000
    clock.elapsed_ms = 5 * DAY_MS
    assert clock.now_ms() == RIGHT_MS + 5 * DAY_MS


@pytest.mark.parametrize("absurd_ms", [0, 1000, 2**53, 2**64 - 1, -(2**63)])
def test_what_cannot_be_the_time_is_passed_over(absurd_ms: int) -> None:
    clock = WrongClock(0)
    clock.server_said(b"a", absurd_ms, since_boot_ms=clock.since_boot_ms())
    assert clock.now_ms() == RIGHT_MS


@pytest.mark.parametrize(("one", "other", "taken"), [(0, -2, 0), (-2, 0, 0), (3, 2, 2), (-3, 2, 0)])
def test_of_two_servers_that_disagree_the_one_nearer_to_this_machine_counts(
    one: int, other: int, taken: int
) -> None:
    clock = WrongClock(0)
    clock.hear(b"a", one * DAY_MS)
    clock.hear(b"b", other * DAY_MS)
    assert clock.now_ms() == RIGHT_MS + taken * DAY_MS


def test_of_three_servers_the_one_in_the_middle_counts_whatever_this_machine_has() -> None:
    clock = WrongClock(40 * DAY_MS)
    for name, off_days in ((b"a", -2), (b"b", 0), (b"c", 1)):
        clock.hear(name, off_days * DAY_MS)
    assert clock.now_ms() == RIGHT_MS


def test_no_server_can_turn_the_clock_back_by_which_invites_expire() -> None:
    clock = WrongClock(0)
    for name in (b"a", b"b", b"c"):
        clock.hear(name, -30 * DAY_MS)
    assert clock.now_ms() == RIGHT_MS - 30 * DAY_MS
    assert clock.expiry_ms() == RIGHT_MS
    clock.hear(b"a", 1 * DAY_MS)
    clock.hear(b"b", 1 * DAY_MS)
    assert clock.expiry_ms() == RIGHT_MS + DAY_MS


def test_clock_that_was_found_wrong_decides_nothing_any_more() -> None:
    clock = WrongClock(40 * DAY_MS)
    clock.hear(b"a", 0)
    assert clock.expiry_ms() == RIGHT_MS + 40 * DAY_MS
    clock.follow_servers()
    assert clock.expiry_ms() == RIGHT_MS
