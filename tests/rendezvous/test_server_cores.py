"""The server's parts that the registry is built of."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.codec import encode
from protocol.servers.rendezvous_messages import Announce, Find
from rendezvous.server.address_quota import EXEMPT, AddressQuota, prefix_of
from rendezvous.server.record_history import RecordHistory
from rendezvous.server.refusal import RefusalError
from rendezvous.server.sample_list import SampleList
from tests.rendezvous.world import SWARM, Peer, World
from transport.rate_limit import Allowed, Flooding, Rate, RateLimiter, RetryAfter


class TestSampleList:
    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 20))), st.integers(0, 30))
    def test_holds_what_a_set_would_and_samples_from_it(
        self, steps: list[tuple[bool, int]], most: int
    ) -> None:
        items, expected = SampleList[int](), set[int]()
        for add, item in steps:
            if add:
                items.add(item)
                expected.add(item)
            else:
                items.discard(item)
                expected.discard(item)
        assert len(items) == len(expected)
        assert all((item in items) == (item in expected) for item in range(21))
        sample = items.sample(most, Random(1))
        assert len(sample) == len(set(sample)) == min(most, len(expected))
        assert set(sample) <= expected

    def test_every_item_is_equally_likely(self) -> None:
        items, random = SampleList[int](), Random(5)
        for item in range(40):
            items.add(item)
        for item in range(0, 40, 2):
            items.discard(item)
        drawn = Counter(item for _ in range(4000) for item in items.sample(5, random))
        assert set(drawn) == set(range(1, 40, 2))
        assert all(850 < count < 1150 for count in drawn.values())


class TestRateLimiter:
    RATE = Rate(burst=3.0, per_s=0.5, patience=2)

    def test_burst_is_allowed_and_refilled(self) -> None:
        limiter = RateLimiter(self.RATE)
        assert [limiter.take("a", 1.0, 0.0) for _ in range(4)] == [
            Allowed(),
            Allowed(),
            Allowed(),
            RetryAfter(2.0),
        ]
        assert limiter.take("a", 1.0, 2.0) == Allowed()
        assert limiter.take("a", 1.0, 2.0) == RetryAfter(2.0)

    def test_patience_ends_and_begins_anew_with_the_next_allowed_request(self) -> None:
        limiter = RateLimiter(self.RATE)
        limiter.take("a", 3.0, 0.0)
        verdicts = [type(limiter.take("a", 3.0, 0.0)) for _ in range(4)]
        assert verdicts == [RetryAfter, RetryAfter, Flooding, Flooding]
        assert limiter.take("a", 3.0, 6.0) == Allowed()
        assert type(limiter.take("a", 3.0, 6.0)) is RetryAfter

    def test_keys_are_apart_and_the_least_recent_is_forgotten(self) -> None:
        limiter = RateLimiter(self.RATE, capacity=2)
        limiter.take("a", 3.0, 0.0)
        limiter.take("b", 3.0, 0.0)
        assert type(limiter.take("a", 1.0, 0.0)) is RetryAfter
        limiter.take("c", 3.0, 0.0)
        assert type(limiter.take("a", 1.0, 0.0)) is RetryAfter
        assert limiter.take("b", 1.0, 0.0) == Allowed()


class TestAddressQuota:
    @pytest.mark.parametrize(
        ("ip", "prefix"),
        [
            ("198.51.100.77", "198.51.100.0/24"),
            ("2001:db8:1:2:3::4", "2001:db8:1::/48"),
            ("127.0.0.9", EXEMPT),
            ("::1", EXEMPT),
        ],
    )
    def test_prefix(self, ip: str, prefix: str) -> None:
        assert prefix_of(ip) == prefix

    def test_counts_up_and_down(self) -> None:
        quota = AddressQuota(2)
        for _ in range(2):
            assert quota.has_room("n")
            quota.add("n")
        assert not quota.has_room("n")
        assert quota.has_room("other")
        quota.remove("n")
        assert quota.has_room("n")


def test_record_history_forgets_the_peer_that_was_seen_least_recently() -> None:
    history = RecordHistory(capacity=2)
    for peer in (b"a", b"b"):
        history.accept(SWARM, peer, 5, b"raw")
    history.accept(SWARM, b"a", 6, b"raw")
    history.accept(SWARM, b"c", 5, b"raw")
    history.accept(SWARM, b"b", 4, b"raw")
    with pytest.raises(RefusalError, match="above 5 expected, got 4"):
        history.accept(SWARM, b"c", 4, b"raw")


VALID_FRAMES = [
    encode(Announce(request=1, record=Peer(1).record())),
    encode(Find(request=2, swarm=SWARM, peer=bytes(32), curve_key=b"")),
]


@settings(max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.builds(
            lambda frame, index, value: (
                frame[: index % len(frame)] + bytes([value]) + frame[index % len(frame) + 1 :]
            ),
            st.sampled_from(VALID_FRAMES),
            st.integers(0, 10_000),
            st.integers(0, 255),
        ),
    )
)
def test_any_bytes_get_one_answer_and_break_nothing(frame: bytes) -> None:
    world = World()
    assert len(world.send(Peer(1), frame)) == 1
    assert world.disconnected == []
