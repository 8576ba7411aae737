from dataclasses import replace
from hashlib import sha256
from random import Random

import msgspec
import pytest

from protocol.codec import decode, encode
from protocol.envelope import Domain, seal_envelope
from protocol.identity import KEY_BYTES
from protocol.peers.sealed_signal import MAX_SIGNAL_BYTES
from protocol.servers.rendezvous_messages import (
    MAX_FRAME_BYTES,
    MAX_LOOKUP,
    MAX_MEMBERS,
    Announce,
    Done,
    FetchStatement,
    Find,
    Granted,
    Heartbeat,
    Joined,
    Leave,
    Left,
    ListMembers,
    Lookup,
    MemberList,
    PublishStatement,
    Records,
    Refused,
    Reply,
    SendSignal,
    Signal,
    Statement,
)
from protocol.statements.peer_record import RECORD_LIFETIME_MS, PeerRecord
from rendezvous.server.directory import (
    RecordRemoved,
    RecordsRenewed,
    RecordStored,
    StatementRemoved,
    StatementStored,
    StoredRecord,
)
from rendezvous.server.effects import Sender
from rendezvous.server.lease_table import Lease, LeaseTable
from rendezvous.server.limits import RegistryLimits
from rendezvous.server.look_ups import LookUps
from tests.rendezvous.world import OTHER_SWARM, START_MS, SWARM, Peer, World, statement
from transport.rate_limit import Rate

UNHURRIED = RegistryLimits(key_rate=Rate(1e9, 1e9, 0), prefix_rate=Rate(1e9, 1e9, 0))


@pytest.fixture
def world() -> World:
    return World(UNHURRIED)


def code(reply: Reply) -> str:
    assert isinstance(reply, Refused), reply
    return reply.code


def looked_up(world: World, peer: Peer, want: int = 50, swarm: bytes = SWARM) -> Records:
    reply = world.ask(peer, Lookup(request=9, swarm=swarm, want=want))
    assert isinstance(reply, Records)
    return reply


def keys_in(reply: Reply) -> set[bytes]:
    assert isinstance(reply, MemberList), reply
    starts = range(0, len(reply.peers), KEY_BYTES)
    return {reply.peers[start : start + KEY_BYTES] for start in starts}


class TestLease:
    def test_announce_grants_a_lease_and_tells_time_address_and_interval(
        self, world: World
    ) -> None:
        granted = world.announce(Peer(1, ip="198.51.100.7"))
        assert isinstance(granted, Granted)
        assert (granted.lease_s, granted.server_time_ms) == (150.0, START_MS)
        assert granted.observed_address == "198.51.100.7"
        assert 48.0 <= granted.interval_s <= 72.0

    def test_intervals_are_spread_so_that_peers_do_not_come_together(self, world: World) -> None:
        intervals = set()
        for number in range(50):
            granted = world.announce(Peer(number + 1))
            assert isinstance(granted, Granted)
            intervals.add(granted.interval_s)
        assert min(intervals) < 52 < 68 < max(intervals)

    def test_lease_ends_when_it_is_not_renewed_and_others_are_told(self, world: World) -> None:
        stays, goes = Peer(1), Peer(2)
        world.announce(stays)
        world.announce(goes)
        world.wait(100)
        world.ask(stays, Heartbeat(request=2, swarm=SWARM))
        world.wait(49.9)
        assert world.registry.lease_count == 2
        world.wait(0.2)
        assert world.registry.lease_count == 1
        assert world.notices[stays.route][-1] == Left(swarm=SWARM, peer=goes.identity.public_key)
        assert world.changes[-1] == RecordRemoved(SWARM, goes.identity.public_key, "expired")

    def test_heartbeats_keep_a_lease_for_hours(self, world: World) -> None:
        peer = Peer(1)
        world.announce(peer)
        for _ in range(300):
            world.wait(60)
            assert isinstance(world.ask(peer, Heartbeat(request=2, swarm=SWARM)), Granted)
        assert world.registry.lease_count == 1
        assert len(world.changes) == 1, "heartbeats write nothing"

    def test_others_of_the_same_store_are_told_at_once_of_all_who_renewed(self) -> None:
        world, peers = World(UNHURRIED, is_shared=True), [Peer(1), Peer(2), Peer(3)]
        for peer in peers:
            world.announce(peer)
        del world.changes[:]
        for peer in (*peers[:2], *peers[:2]):
            world.ask(peer, Heartbeat(request=2, swarm=SWARM))
        assert world.changes == []
        world.look_around()
        (renewed,) = world.changes
        assert isinstance(renewed, RecordsRenewed)
        names = {SWARM + peer.identity.public_key for peer in peers[:2]}
        assert len(renewed.names) == 2
        assert set(renewed.names) == names
        world.look_around()
        assert world.changes == [renewed], "once"

    def test_heartbeat_without_a_lease_is_unknown(self, world: World) -> None:
        assert code(world.ask(Peer(1), Heartbeat(request=2, swarm=SWARM))) == "unknown"

    def test_heartbeat_renews_only_the_lease_of_its_own_key(self, world: World) -> None:
        world.announce(Peer(1))
        world.wait(149)
        assert code(world.ask(Peer(2), Heartbeat(request=2, swarm=SWARM))) == "unknown"
        world.wait(2)
        assert world.registry.lease_count == 0

    def test_lease_does_not_outlive_its_record(self, world: World) -> None:
        peer = Peer(1)
        record = peer.record(now_ms=START_MS - RECORD_LIFETIME_MS + 60_000)
        assert isinstance(world.ask(peer, Announce(request=1, record=record)), Granted)
        world.wait(61)
        assert looked_up(world, Peer(2)).records == ()
        by_key = Find(request=3, swarm=SWARM, peer=peer.identity.public_key, curve_key=b"")
        assert code(world.ask(Peer(2), by_key)) == "unknown"
        assert code(world.ask(peer, Heartbeat(request=2, swarm=SWARM))) == "stale"
        assert world.registry.lease_count == 0

    def test_leave_ends_the_lease_at_once(self, world: World) -> None:
        stays, goes = Peer(1), Peer(2)
        world.announce(stays)
        world.announce(goes)
        assert isinstance(world.ask(goes, Leave(request=2, swarm=SWARM)), Done)
        assert world.notices[stays.route][-1] == Left(swarm=SWARM, peer=goes.identity.public_key)
        assert world.notices[goes.route] == []
        assert code(world.ask(goes, Leave(request=3, swarm=SWARM))) == "unknown"
        assert looked_up(world, stays) == Records(request=9, records=(), total=1)

    def test_nobody_can_leave_for_another(self, world: World) -> None:
        world.announce(Peer(1))
        assert code(world.ask(Peer(2), Leave(request=2, swarm=SWARM))) == "unknown"
        assert world.registry.lease_count == 1

    def test_leases_of_two_swarms_are_apart(self, world: World) -> None:
        peer = Peer(1)
        world.announce(peer)
        world.announce(peer, swarm=OTHER_SWARM)
        world.ask(peer, Leave(request=2, swarm=SWARM))
        assert looked_up(world, Peer(2), swarm=SWARM).total == 0
        assert looked_up(world, Peer(2), swarm=OTHER_SWARM).total == 1

    def test_many_leases_that_end_together_end_bit_by_bit(self, world: World) -> None:
        for number in range(500):
            world.announce(Peer(number + 1))
        world.now += 151
        ended = []
        while world.registry.lease_count:
            before = world.registry.lease_count
            world.registry.handle_timer(world.now)
            ended.append(before - world.registry.lease_count)
        assert ended == [200, 200, 100]


class TestRecord:
    def test_record_of_another_connections_key_is_denied(self, world: World) -> None:
        honest, thief = Peer(1), Peer(2)
        reply = world.ask(thief, Announce(request=1, record=honest.record()))
        assert code(reply) == "denied"
        assert world.registry.refused == {"denied": 1}
        assert world.registry.lease_count == 0

    def test_record_whose_signature_does_not_hold_is_denied(self, world: World) -> None:
        peer = Peer(1)
        record = bytearray(peer.record())
        record[-1] ^= 1
        assert code(world.ask(peer, Announce(request=1, record=bytes(record)))) == "denied"

    def test_expired_record_is_denied(self, world: World) -> None:
        peer = Peer(1)
        record = peer.record(now_ms=START_MS - RECORD_LIFETIME_MS)
        assert code(world.ask(peer, Announce(request=1, record=record))) == "denied"

    def test_statement_of_another_kind_is_no_record(self, world: World) -> None:
        peer = Peer(1)
        hello = seal_envelope(peer.identity, Domain.HELLO, b"", swarm=SWARM, sequence=1)
        assert code(world.ask(peer, Announce(request=1, record=hello))) == "denied"

    def test_bytes_that_are_no_envelope_are_malformed(self, world: World) -> None:
        assert code(world.ask(Peer(1), Announce(request=1, record=b"\xff" * 100))) == "malformed"

    def test_record_for_what_is_no_swarm_id_is_malformed(self, world: World) -> None:
        peer = Peer(1)
        record = peer.record(swarm=b"short")
        assert code(world.ask(peer, Announce(request=1, record=record))) == "malformed"

    def test_record_of_another_protocol_version_is_answered_with_the_upgrade_hint(
        self, world: World
    ) -> None:
        peer = Peer(1)
        body, signature = msgspec.msgpack.decode(peer.record())
        fields = msgspec.msgpack.decode(body)
        fields[1] += 1
        record = msgspec.msgpack.encode([msgspec.msgpack.encode(fields), signature])
        reply = world.ask(peer, Announce(request=1, record=record))
        assert code(reply) == "version"
        assert isinstance(reply, Refused)
        assert "upgrade" in reply.text

    def test_older_record_is_stale(self, world: World) -> None:
        peer = Peer(1)
        world.announce(peer, sequence=5)
        reply = world.announce(peer, sequence=4)
        assert code(reply) == "stale"
        assert looked_up(world, Peer(2)).records == (peer.record(5),)

    def test_another_record_with_the_same_number_is_stale(self, world: World) -> None:
        peer = Peer(1)
        world.announce(peer, sequence=5)
        other = peer.record(5, address="192.0.2.66:1")
        assert code(world.ask(peer, Announce(request=1, record=other))) == "stale"

    def test_older_record_is_stale_after_the_lease_was_given_back(self, world: World) -> None:
        peer = Peer(1)
        world.announce(peer, sequence=5)
        world.ask(peer, Leave(request=2, swarm=SWARM))
        assert code(world.announce(peer, sequence=4)) == "stale"

    def test_same_record_takes_the_lease_again_after_it_ended(self, world: World) -> None:
        peer = Peer(1)
        record = peer.record(5)
        world.ask(peer, Announce(request=1, record=record))
        world.wait(200)
        assert world.registry.lease_count == 0
        assert isinstance(world.ask(peer, Announce(request=1, record=record)), Granted)

    def test_newer_record_replaces_the_older_one(self, world: World) -> None:
        peer, other = Peer(1), Peer(2)
        world.announce(other)
        world.announce(peer, sequence=5)
        world.announce(peer, sequence=6)
        assert looked_up(world, other) == Records(request=9, records=(peer.record(6),), total=2)
        assert world.notices[other.route] == [
            Joined(record=peer.record(5)),
            Joined(record=peer.record(6)),
        ]

    def test_same_record_again_is_no_news(self, world: World) -> None:
        peer, other = Peer(1), Peer(2)
        world.announce(other)
        for _ in range(3):
            world.announce(peer)
        assert world.notices[other.route] == [Joined(record=peer.record())]
        assert len(world.changes) == 2

    def test_peer_with_a_new_curve_key_is_found_by_that_one_only(self, world: World) -> None:
        peer = Peer(1)
        world.announce(peer)
        old_key = peer.curve.public
        peer.curve = Peer(77).curve
        world.announce(peer, sequence=2)
        old = Find(request=3, swarm=SWARM, peer=b"", curve_key=old_key)
        new = Find(request=4, swarm=SWARM, peer=b"", curve_key=peer.curve.public)
        assert code(world.ask(Peer(2), old)) == "unknown"
        assert world.ask(Peer(2), new) == Records(request=4, records=(peer.record(2),), total=1)

    def test_new_identity_with_the_same_curve_key_replaces_the_old_one(self, world: World) -> None:
        peer, other = Peer(1), Peer(2)
        world.announce(other)
        world.announce(peer)
        old_key = peer.identity.public_key
        peer.identity = Peer(77).identity
        world.announce(peer)
        assert world.notices[other.route][1:] == [
            Left(swarm=SWARM, peer=old_key),
            Joined(record=peer.record()),
        ]
        assert looked_up(world, other).total == 2


class TestLookup:
    def test_lookup_of_an_empty_swarm_finds_nobody(self, world: World) -> None:
        assert looked_up(world, Peer(1)) == Records(request=9, records=(), total=0)

    def test_lookup_finds_the_others_but_not_oneself(self, world: World) -> None:
        peers = [Peer(number) for number in (1, 2, 3)]
        for peer in peers:
            world.announce(peer)
        found = looked_up(world, peers[0])
        assert sorted(found.records) == sorted(peer.record() for peer in peers[1:])
        assert found.total == 3

    @pytest.mark.parametrize("want", [10**6, 2**63 - 1, 51])
    def test_wish_for_a_million_peers_is_clamped(self, world: World, want: int) -> None:
        for number in range(60):
            world.announce(Peer(number + 1))
        assert len(looked_up(world, Peer(1000), want).records) == MAX_LOOKUP

    @pytest.mark.parametrize("want", [0, -1, -(2**63)])
    def test_wish_for_less_than_one_peer_gets_none(self, world: World, want: int) -> None:
        world.announce(Peer(1))
        assert looked_up(world, Peer(2), want) == Records(request=9, records=(), total=1)

    def test_samples_differ_and_reach_everyone(self, world: World) -> None:
        for number in range(30):
            world.announce(Peer(number + 1))
        samples = [frozenset(looked_up(world, Peer(1000), 5).records) for _ in range(60)]
        assert {len(sample) for sample in samples} == {5}
        assert len(set(samples)) > 50
        assert len(frozenset.union(*samples)) == 30

    def test_reply_fits_in_a_frame_however_long_the_records_are(self, world: World) -> None:
        for number in range(60):
            peer = Peer(number + 1)
            name = "x" * 60
            addresses = tuple(f"{'a' * 240}.example:{4000 + i}" for i in range(16))
            content = PeerRecord(
                curve_key=peer.curve.public, addresses=addresses, name=name, trains=True
            )
            raw = seal_envelope(
                peer.identity, Domain.PEER_RECORD, encode(content), swarm=SWARM, sequence=1
            )
            assert isinstance(world.ask(peer, Announce(request=1, record=raw)), Granted)
        found = looked_up(world, Peer(1000))
        assert 20 < len(found.records) < MAX_LOOKUP
        assert len(encode(found)) <= MAX_FRAME_BYTES

    def test_members_are_those_of_the_swarm(self, world: World) -> None:
        peers = [Peer(number) for number in (1, 2, 3)]
        for peer in peers:
            world.announce(peer)
        world.announce(Peer(4), swarm=OTHER_SWARM)
        reply = world.ask(peers[0], ListMembers(request=9, swarm=SWARM))
        assert keys_in(reply) == {peer.identity.public_key for peer in peers}

    def test_member_whose_record_has_expired_is_not_named(self, world: World) -> None:
        for number in (1, 2):
            world.announce(Peer(number))
        world.now_ms += RECORD_LIFETIME_MS + 1
        late = Peer(3)
        world.ask(late, Announce(request=1, record=late.record(now_ms=world.now_ms)))
        reply = world.ask(late, ListMembers(request=9, swarm=SWARM))
        assert keys_in(reply) == {late.identity.public_key}

    def test_list_of_very_many_members_fits_in_a_frame_and_is_the_same_for_all(self) -> None:
        leases = LeaseTable()
        keys = [sha256(b"%d" % number).digest() for number in range(MAX_MEMBERS + 100)]
        for key in keys:
            kept = StoredRecord(SWARM, key, key, 1, START_MS + 1, "", b"record")
            leases.add(Lease.of(kept, route=None, expires_at=1.0))
        for key in keys[:2]:
            asking = Sender(b"route", key, "192.0.2.1")
            request = ListMembers(2**63 - 1, SWARM)
            told = LookUps(leases, Random(1)).members(asking, request, START_MS)
            assert len(told.frame) <= MAX_FRAME_BYTES
            assert keys_in(decode(told.frame, MemberList)) == set(sorted(keys)[:MAX_MEMBERS])

    def test_find_by_either_key(self, world: World) -> None:
        peer = Peer(1)
        world.announce(peer)
        expected = Records(request=3, records=(peer.record(),), total=1)
        by_identity = Find(request=3, swarm=SWARM, peer=peer.identity.public_key, curve_key=b"")
        by_curve = Find(request=3, swarm=SWARM, peer=b"", curve_key=peer.curve.public)
        assert world.ask(Peer(2), by_identity) == expected
        assert world.ask(Peer(2), by_curve) == expected

    def test_find_in_another_swarm_is_unknown(self, world: World) -> None:
        peer = Peer(1)
        world.announce(peer)
        request = Find(request=3, swarm=OTHER_SWARM, peer=b"", curve_key=peer.curve.public)
        assert code(world.ask(Peer(2), request)) == "unknown"

    @pytest.mark.parametrize(
        ("peer", "curve_key"), [(b"", b""), (b"p" * 32, b"c" * 32), (b"p" * 31, b""), (b"", b"c")]
    )
    def test_find_with_none_or_two_or_broken_keys_is_malformed(
        self, world: World, peer: bytes, curve_key: bytes
    ) -> None:
        request = Find(request=3, swarm=SWARM, peer=peer, curve_key=curve_key)
        assert code(world.ask(Peer(2), request)) == "malformed"


class TestNotices:
    def test_notice_goes_to_a_bounded_number_of_peers(self, world: World) -> None:
        for number in range(80):
            world.announce(Peer(number + 1))
        world.notices.clear()
        world.announce(Peer(1000))
        assert len(world.notices) == 50
        assert all(len(notices) == 1 for notices in world.notices.values())

    def test_peer_that_is_not_connected_gets_no_notice_but_keeps_its_lease(
        self, world: World
    ) -> None:
        away = Peer(1)
        world.announce(away)
        world.registry.disconnected(away.route)
        world.announce(Peer(2))
        assert world.notices[away.route] == []
        assert world.registry.lease_count == 2

    def test_peer_on_a_new_connection_gets_notices_there(self, world: World) -> None:
        peer = Peer(1)
        world.announce(peer)
        back = replace(peer, connection=1)
        world.ask(back, Heartbeat(request=2, swarm=SWARM))
        world.registry.disconnected(peer.route)
        world.announce(Peer(2))
        assert world.notices[peer.route] == []
        assert len(world.notices[back.route]) == 1


class TestSignal:
    def send(self, world: World, sender: Peer, to: Peer, sealed: bytes = b"sealed") -> Reply:
        request = SendSignal(request=4, swarm=SWARM, to=to.identity.public_key, sealed=sealed)
        return world.ask(sender, request)

    def test_signal_reaches_its_receiver_and_only_it(self, world: World) -> None:
        peers = [Peer(number) for number in (1, 2, 3)]
        for peer in peers:
            world.announce(peer)
        world.notices.clear()
        assert isinstance(self.send(world, peers[0], peers[1]), Done)
        told = Signal(SWARM, b"sealed", peers[0].identity.public_key, peers[0].ip)
        assert dict(world.notices) == {peers[1].route: [told]}

    def test_signal_to_someone_who_is_not_there_is_unknown(self, world: World) -> None:
        world.announce(Peer(1))
        assert code(self.send(world, Peer(1), Peer(2))) == "unknown"

    def test_signal_to_someone_who_is_not_connected_is_unknown(self, world: World) -> None:
        world.announce(Peer(1))
        world.announce(Peer(2))
        world.registry.disconnected(Peer(2).route)
        assert code(self.send(world, Peer(1), Peer(2))) == "unknown"

    def test_signal_that_cannot_be_queued_is_unknown(self, world: World) -> None:
        world.announce(Peer(1))
        world.announce(Peer(2))
        world.full_routes.add(Peer(2).route)
        assert code(self.send(world, Peer(1), Peer(2))) == "unknown"

    def test_stranger_cannot_send_signals_into_a_swarm(self, world: World) -> None:
        world.announce(Peer(2))
        assert code(self.send(world, Peer(1), Peer(2))) == "denied"
        assert world.notices[Peer(2).route] == []

    def test_signal_above_its_bound_is_malformed(self, world: World) -> None:
        world.announce(Peer(1))
        world.announce(Peer(2))
        assert isinstance(self.send(world, Peer(1), Peer(2), bytes(MAX_SIGNAL_BYTES)), Done)
        too_long = bytes(MAX_SIGNAL_BYTES + 1)
        assert code(self.send(world, Peer(1), Peer(2), too_long)) == "malformed"


class TestStatement:
    def publish(self, world: World, raw: bytes, peer: Peer | None = None) -> Reply:
        return world.ask(peer or Peer(1), PublishStatement(request=5, statement=raw))

    def fetch(self, world: World, swarm: bytes) -> Reply:
        return world.ask(Peer(2), FetchStatement(request=6, swarm=swarm))

    def test_published_statement_is_fetched_as_it_was(self, world: World) -> None:
        swarm = statement()
        assert isinstance(self.publish(world, swarm.raw), Done)
        assert self.fetch(world, swarm.swarm_id) == Statement(request=6, statement=swarm.raw)
        assert world.changes == [StatementStored(swarm.swarm_id, swarm.raw)]

    def test_statement_that_nobody_published_is_unknown(self, world: World) -> None:
        assert code(self.fetch(world, SWARM)) == "unknown"

    def test_higher_version_wins_and_a_lower_one_is_stale(self, world: World) -> None:
        versions = {version: statement(version) for version in (1, 2, 3)}
        for version in (1, 3):
            assert isinstance(self.publish(world, versions[version].raw), Done)
        assert code(self.publish(world, versions[2].raw)) == "stale"
        assert self.fetch(world, versions[1].swarm_id) == Statement(
            request=6, statement=versions[3].raw
        )

    def test_same_statement_again_is_fine_and_changes_nothing(self, world: World) -> None:
        for _ in range(2):
            assert isinstance(self.publish(world, statement().raw), Done)
        assert len(world.changes) == 1

    def test_other_statement_of_the_same_version_is_stale(self, world: World) -> None:
        self.publish(world, statement(1).raw)
        assert code(self.publish(world, statement(1, padding=1).raw)) == "stale"

    def test_version_that_changes_the_training_is_denied(self, world: World) -> None:
        self.publish(world, statement(1).raw)
        assert code(self.publish(world, statement(2, seed=99).raw)) == "denied"

    def test_statement_that_the_founder_did_not_sign_is_denied(self, world: World) -> None:
        raw = bytearray(statement().raw)
        raw[-1] ^= 1
        assert code(self.publish(world, bytes(raw))) == "denied"

    def test_statement_of_an_invented_swarm_id_is_denied(self, world: World) -> None:
        swarm = statement()
        forged = seal_envelope(
            Peer(1).identity,
            Domain.SWARM,
            encode(swarm.statement),
            swarm=swarm.swarm_id,
            sequence=1,
        )
        assert code(self.publish(world, forged)) == "denied"

    def test_statement_that_cannot_be_kept_is_not_called_done(self, world: World) -> None:
        world.disk_is_full = True
        assert code(self.publish(world, statement().raw)) == "retry_after"

    def test_statements_of_deserted_swarms_make_room_for_new_ones(self) -> None:
        world = World(replace(UNHURRIED, max_statements=3))
        swarms = [statement(name=f"swarm {number}") for number in range(4)]
        for swarm in swarms[:3]:
            self.publish(world, swarm.raw)
        world.announce(Peer(7), swarm=swarms[0].swarm_id)
        self.fetch(world, swarms[1].swarm_id)
        assert isinstance(self.publish(world, swarms[3].raw), Done)
        assert world.changes[-2] == StatementRemoved(swarms[2].swarm_id)
        assert set(world.directory.statements) == {swarms[i].swarm_id for i in (0, 1, 3)}

    def test_no_statement_goes_while_peers_are_in_its_swarm(self) -> None:
        world = World(replace(UNHURRIED, max_statements=2))
        swarms = [statement(name=f"swarm {number}") for number in range(3)]
        for swarm in swarms[:2]:
            self.publish(world, swarm.raw)
            world.announce(Peer(7), swarm=swarm.swarm_id)
        assert code(self.publish(world, swarms[2].raw)) == "quota"
        assert world.registry.statement_count == 2

    def test_bytes_of_all_statements_are_bounded(self) -> None:
        size = len(statement(padding=100).raw)
        world = World(replace(UNHURRIED, max_statement_bytes=3 * size + 10))
        for number in range(20):
            self.publish(world, statement(name=f"swarm {number:02}", padding=100).raw)
        kept = world.directory.statements.values()
        assert sum(len(raw) for raw in kept) <= 3 * size + 10
        assert world.registry.statement_count == len(kept) >= 2

    def test_one_network_publishes_a_bounded_number_of_swarms(self) -> None:
        world = World(replace(UNHURRIED, max_statements_per_prefix=3))
        replies = [
            self.publish(
                world,
                statement(name=f"swarm {number}").raw,
                Peer(number + 1, ip=f"198.51.100.{number}"),
            )
            for number in range(4)
        ]
        assert [type(reply) for reply in replies[:3]] == [Done] * 3
        assert code(replies[3]) == "quota"
        elsewhere = Peer(50, ip="203.0.113.1")
        assert isinstance(self.publish(world, statement(name="other").raw, elsewhere), Done)


class TestBounds:
    @pytest.mark.parametrize("network", ["198.51.100.{}", "2001:db8:7:{}::1"])
    def test_too_many_identities_of_one_network_meet_a_quota(self, network: str) -> None:
        world = World(replace(UNHURRIED, max_leases_per_prefix=4))
        peers = [Peer(number + 1, ip=network.format(number)) for number in range(5)]
        replies = [world.announce(peer) for peer in peers]
        assert [type(reply) for reply in replies[:4]] == [Granted] * 4
        assert code(replies[4]) == "quota"
        assert isinstance(world.announce(Peer(90, ip="203.0.113.1")), Granted)
        assert isinstance(world.announce(peers[0], sequence=2), Granted), "it has its place"
        world.ask(peers[1], Leave(request=2, swarm=SWARM))
        assert isinstance(world.announce(peers[4]), Granted), "the place is free again"

    def test_loopback_is_exempt_from_the_quota_of_networks(self) -> None:
        world = World(replace(UNHURRIED, max_leases_per_prefix=4))
        for number in range(20):
            assert isinstance(world.announce(Peer(number + 1, ip="127.0.0.1")), Granted)

    def test_peers_are_bounded_in_all_and_in_each_swarm(self) -> None:
        world = World(replace(UNHURRIED, max_leases=5, max_leases_per_swarm=3))
        for number in range(3):
            assert isinstance(world.announce(Peer(number + 1)), Granted)
        assert code(world.announce(Peer(4))) == "quota"
        for number in range(2):
            assert isinstance(world.announce(Peer(number + 1), swarm=OTHER_SWARM), Granted)
        assert code(world.announce(Peer(5), swarm=b"x" * 32)) == "quota"
        assert isinstance(world.announce(Peer(1), sequence=2), Granted)

    def test_bytes_of_all_records_are_bounded(self) -> None:
        world = World(replace(UNHURRIED, max_record_bytes=3 * len(Peer(1).record()) + 5))
        replies = [world.announce(Peer(number + 1)) for number in range(4)]
        assert [type(reply) for reply in replies[:3]] == [Granted] * 3
        assert code(replies[3]) == "quota"

    def test_longer_record_of_the_same_peer_counts_too(self) -> None:
        world = World(replace(UNHURRIED, max_record_bytes=len(Peer(1).record()) + 5))
        assert isinstance(world.announce(Peer(1)), Granted)
        longer = Peer(1).record(2, address=f"{'a' * 100}.example:1")
        assert code(world.ask(Peer(1), Announce(request=1, record=longer))) == "quota"

    def test_announce_flood_is_told_when_to_retry_and_then_disconnected(self) -> None:
        world = World()
        peer = Peer(1)
        outcomes = []
        while not world.disconnected:
            for reply in world.send(peer, encode(Announce(request=1, record=peer.record()))):
                outcomes.append(reply.code if isinstance(reply, Refused) else "granted")
                if isinstance(reply, Refused):
                    assert 0 < reply.retry_after_s < 10
        assert outcomes == ["granted"] * 20 + ["retry_after"] * 20
        assert world.disconnected == [(peer.route, "flood")]
        assert world.registry.refused == {"retry_after": 20, "flood": 1}

    def test_flooder_who_reconnects_is_still_one_and_is_heard_when_it_waited(self) -> None:
        world = World()
        peer = Peer(1)
        request = encode(Announce(request=1, record=peer.record()))
        while not world.disconnected:
            world.send(peer, request)
        back = replace(peer, connection=1)
        assert world.send(back, request) == []
        assert world.disconnected[-1] == (back.route, "flood")
        world.wait(5)
        [reply] = world.send(back, request)
        assert isinstance(reply, Granted)

    def test_flood_of_many_keys_from_one_network_is_slowed_down_too(self) -> None:
        rate = Rate(burst=100, per_s=1, patience=5)
        world = World(replace(RegistryLimits(), prefix_rate=rate))
        for number in range(30):
            peer = Peer(number + 1, ip="198.51.100.9")
            for _ in range(5):
                world.send(peer, encode(Heartbeat(request=1, swarm=SWARM)))
        assert world.disconnected
        assert world.registry.refused["retry_after"] == 5
        [reply] = world.send(Peer(99, ip="203.0.113.1"), encode(Heartbeat(request=1, swarm=SWARM)))
        assert code(reply) == "unknown"

    @pytest.mark.parametrize(
        "frame",
        [
            b"",
            b"\xc1",
            b"\xdd\xff\xff\xff\xff",
            b"\xdb\xff\xff\xff\xff",
            b"\xc6\xff\xff\xff\xff",
            b"\x91" * 100_000,
            encode(Heartbeat(request=1, swarm=SWARM)) + b"\0",
            b"\x93\xa9heartbeat\x01",
            b"\x94\xa9heartbeat\x01\xc4\x01s\x05",
            b"\x93\xa9heartbeat\xa1x\xc4\x01s",
            b"\x93\xa7unknown\x01\xc4\x01s",
            b"\x83\xa4type\xa9heartbeat\xa7request\x01\xa5swarm\xc4\x01s",
            bytes(MAX_FRAME_BYTES + 1),
        ],
        ids=[
            "empty",
            "reserved byte",
            "array of 4 GiB",
            "text of 4 GiB",
            "bytes of 4 GiB",
            "nested 100,000 deep",
            "trailing byte",
            "field missing",
            "unknown field",
            "wrong type",
            "unknown tag",
            "map instead of array",
            "longer than a frame",
        ],
    )
    def test_what_is_no_message_is_refused_as_malformed(self, world: World, frame: bytes) -> None:
        [reply] = world.send(Peer(1), frame)
        assert code(reply) == "malformed"

    def test_malformed_flood_ends_in_disconnection(self) -> None:
        world = World()
        frames = 0
        while not world.disconnected:
            world.send(Peer(1), b"\xc1")
            frames += 1
            assert frames < 200


class TestRestore:
    def test_peers_and_statements_are_there_after_a_restart(self, world: World) -> None:
        swarm = statement()
        world.ask(Peer(1), PublishStatement(request=1, statement=swarm.raw))
        world.announce(Peer(1))
        world.announce(Peer(2))
        world.ask(Peer(2), Leave(request=2, swarm=SWARM))
        after = world.restart(UNHURRIED)
        assert looked_up(after, Peer(3)).records == (Peer(1).record(),)
        fetch = FetchStatement(request=6, swarm=swarm.swarm_id)
        assert after.ask(Peer(3), fetch) == Statement(request=6, statement=swarm.raw)

    def test_restored_lease_ends_unless_its_peer_comes_back(self, world: World) -> None:
        world.announce(Peer(1))
        world.announce(Peer(2))
        after = world.restart(UNHURRIED)
        assert isinstance(after.ask(Peer(1), Heartbeat(request=1, swarm=SWARM)), Granted)
        after.wait(151)
        assert after.registry.lease_count == 0
        after = world.restart(UNHURRIED)
        after.wait(140)
        after.ask(Peer(1), Announce(request=1, record=Peer(1).record()))
        after.wait(20)
        assert after.registry.lease_count == 1

    def test_old_record_is_still_stale_after_a_restart(self, world: World) -> None:
        world.announce(Peer(1), sequence=5)
        after = world.restart(UNHURRIED)
        assert code(after.announce(Peer(1), sequence=4)) == "stale"

    def test_records_that_expired_meanwhile_are_left_out_and_forgotten(self, world: World) -> None:
        world.announce(Peer(1))
        world.now_ms += RECORD_LIFETIME_MS
        after = world.restart(UNHURRIED)
        assert after.registry.lease_count == 0
        assert after.directory.records == {}

    def test_changes_say_what_a_store_needs(self, world: World) -> None:
        world.announce(Peer(1, ip="198.51.100.7"))
        [change] = world.changes
        assert isinstance(change, RecordStored)
        assert change.record.prefix == "198.51.100.0/24"
        assert change.record.peer == Peer(1).identity.public_key
        assert change.record.expires_ms == START_MS + RECORD_LIFETIME_MS

    def test_new_record_is_news_where_the_peer_is_new_or_elsewhere(self, world: World) -> None:
        world.announce(Peer(1, ip="198.51.100.7"))
        world.announce(Peer(1, ip="198.51.100.8"), sequence=2)
        world.announce(Peer(1, ip="203.0.113.7"), sequence=3)
        news = [change.is_news for change in world.changes if isinstance(change, RecordStored)]
        assert news == [True, False, True]
