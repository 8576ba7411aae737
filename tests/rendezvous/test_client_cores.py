"""The client's parts without I/O: waiting, keeping a lease, measuring the server's clock."""

import math
from random import Random

import pytest

from rendezvous.client.lease_keeper import REFUSED_MOST_S, LeaseKeeper, LeaseState
from rendezvous.client.server_clock import Measurement, ServerClock
from transport.backoff import Backoff, bounded_wait_s


class TestBackoff:
    def test_waits_are_spread_from_zero_to_a_ceiling_that_doubles(self) -> None:
        waits = []
        for seed in range(500):
            backoff = Backoff(1.0, 8.0, Random(seed))
            waits.append([backoff.next_s() for _ in range(6)])
        for attempt, ceiling in enumerate((1, 2, 4, 8, 8, 8)):
            column = [wait[attempt] for wait in waits]
            assert 0 <= min(column) < 0.05 * ceiling
            assert 0.95 * ceiling < max(column) <= ceiling
            assert abs(sum(column) / len(column) - ceiling / 2) < 0.1 * ceiling

    def test_success_starts_it_over(self) -> None:
        backoff = Backoff(1.0, 100.0, Random(1))
        for _ in range(10):
            backoff.next_s()
        backoff.reset()
        assert backoff.next_s() <= 1.0

    def test_without_chance_it_doubles_up_to_its_most(self) -> None:
        backoff = Backoff(1.0, 3.0)
        assert [backoff.next_s() for _ in range(4)] == [1.0, 2.0, 3.0, 3.0]

    @pytest.mark.parametrize(
        ("wish", "wait"),
        [(60.0, 60.0), (0.0, 0.1), (-5.0, 0.1), (1e9, 300.0), (math.inf, 300.0), (math.nan, 300.0)],
    )
    def test_servers_wish_is_kept_within_reason(self, wish: float, wait: float) -> None:
        assert bounded_wait_s(wish) == wait


class TestLeaseKeeper:
    def keeper(self) -> LeaseKeeper:
        return LeaseKeeper(Random(3), now=100.0)

    def renewing(self) -> LeaseKeeper:
        keeper = self.keeper()
        keeper.sent()
        keeper.granted(101.0, interval_s=60.0)
        return keeper

    def test_record_is_announced_at_once(self) -> None:
        keeper = self.keeper()
        assert (keeper.state, keeper.due_at) == (LeaseState.ANNOUNCE, 100.0)
        keeper.sent()
        assert keeper.state is LeaseState.WAITING

    def test_granted_lease_is_renewed_after_the_interval(self) -> None:
        keeper = self.renewing()
        assert (keeper.state, keeper.due_at, keeper.granted_at) == (
            LeaseState.RENEW,
            161.0,
            101.0,
        )

    def test_lease_that_the_server_forgot_is_announced_at_once(self) -> None:
        keeper = self.renewing()
        keeper.sent()
        keeper.refused(162.0, code="unknown", text="", retry_after_s=0.0)
        assert (keeper.state, keeper.due_at) == (LeaseState.ANNOUNCE, 162.0)
        assert keeper.refusal is None

    def test_server_that_answers_unknown_to_an_announcement_does_not_make_us_spin(self) -> None:
        keeper = self.keeper()
        for _ in range(5):
            keeper.sent()
            keeper.refused(101.0, code="unknown", text="what?", retry_after_s=0.0)
            assert keeper.due_at >= 101.1

    def test_too_fast_is_tried_again_when_the_server_says_and_is_no_refusal(self) -> None:
        keeper = self.keeper()
        keeper.sent()
        keeper.refused(101.0, code="retry_after", text="slower", retry_after_s=7.0)
        assert (keeper.state, keeper.due_at, keeper.refusal) == (LeaseState.ANNOUNCE, 108.0, None)

    def test_heartbeat_that_came_too_fast_stays_a_heartbeat(self) -> None:
        keeper = self.renewing()
        keeper.sent()
        keeper.refused(162.0, code="retry_after", text="slower", retry_after_s=3.0)
        assert (keeper.state, keeper.due_at) == (LeaseState.RENEW, 165.0)

    def test_refused_record_is_offered_again_ever_more_rarely_until_it_is_taken(self) -> None:
        keeper = self.keeper()
        waits = []
        for _ in range(200):
            keeper.sent()
            keeper.refused(101.0, code="quota", text="full", retry_after_s=0.0)
            waits.append(keeper.due_at - 101.0)
        assert keeper.refusal == "quota: full"
        assert max(waits[:2]) < 10.0
        assert 0.8 * REFUSED_MOST_S < max(waits) <= REFUSED_MOST_S
        keeper.sent()
        keeper.granted(102.0, interval_s=60.0)
        assert keeper.refusal is None

    def test_new_connection_or_record_is_announced_at_once(self) -> None:
        keeper = self.renewing()
        keeper.announce_again(110.0)
        assert (keeper.state, keeper.due_at) == (LeaseState.ANNOUNCE, 110.0)


class TestServerClock:
    AT_MS = 1_800_000_000_000

    def test_unknown_before_the_first_measurement(self) -> None:
        clock = ServerClock()
        assert clock.best is None
        assert clock.round_trip_s is None

    def test_reply_is_half_a_round_trip_old_when_it_comes(self) -> None:
        clock = ServerClock()
        clock.measured(server_ms=self.AT_MS, received_ms=5000, round_trip_s=0.2)
        assert clock.best == Measurement(self.AT_MS + 100, 5000, 0.2)

    def test_shortest_round_trip_of_the_last_is_believed(self) -> None:
        clock = ServerClock()
        clock.measured(server_ms=self.AT_MS, received_ms=1005, round_trip_s=0.010)
        clock.measured(server_ms=self.AT_MS + 999, received_ms=2900, round_trip_s=1.0)
        assert clock.best == Measurement(self.AT_MS + 5, 1005, 0.010)
        assert clock.round_trip_s == 1.0
        for _ in range(8):
            clock.measured(server_ms=self.AT_MS, received_ms=2000, round_trip_s=0.5)
        assert clock.best == Measurement(self.AT_MS + 250, 2000, 0.5)

    @pytest.mark.parametrize("server_ms", [0, -1, 1000, 2**53, 2**64 - 1])
    def test_what_cannot_be_the_time_is_passed_over(self, server_ms: int) -> None:
        clock = ServerClock()
        clock.measured(server_ms=server_ms, received_ms=0, round_trip_s=0.01)
        assert clock.best is None
