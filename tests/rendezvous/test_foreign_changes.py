"""What another rendezvous of the same store did, as this one takes it in."""

from protocol.servers.rendezvous_messages import Joined, Left, Lookup, Records
from rendezvous.server.directory import (
    RecordRemoved,
    RecordsRenewed,
    RecordStored,
    StatementRemoved,
    StatementStored,
    StoredRecord,
)
from rendezvous.server.limits import RegistryLimits
from tests.rendezvous.world import START_MS, SWARM, Peer, World, statement


def stored(peer: Peer, sequence: int = 1) -> RecordStored:
    raw = peer.record(sequence)
    return RecordStored(
        StoredRecord(
            swarm=SWARM,
            peer=peer.identity.public_key,
            curve_key=peer.curve.public,
            sequence=sequence,
            expires_ms=START_MS + 1000 * 3600,
            prefix="198.51.100.0/24",
            raw=raw,
        )
    )


def found(world: World, by: Peer) -> set[bytes]:
    reply = world.ask(by, Lookup(request=1, swarm=SWARM, want=50))
    assert isinstance(reply, Records)
    return set(reply.records)


def test_peer_of_another_rendezvous_is_found_and_announced_here() -> None:
    world, here, there = World(), Peer(1), Peer(2)
    world.announce(here)
    world.take_foreign(stored(there))
    assert found(world, here) == {there.record()}
    assert world.notices[here.route] == [Joined(record=there.record())]
    world.take_foreign(stored(there))
    assert len(world.notices[here.route]) == 1, "nothing new"


def test_older_record_does_not_replace_a_newer_one() -> None:
    world, here, there = World(), Peer(1), Peer(2)
    world.announce(here)
    world.take_foreign(stored(there, sequence=5))
    world.take_foreign(stored(there, sequence=4))
    assert found(world, here) == {there.record(5)}


def test_lease_lasts_for_as_long_as_it_is_renewed_there() -> None:
    world, here, there = World(RegistryLimits(lease_s=100.0)), Peer(1), Peer(2)
    world.take_foreign(stored(there))
    for _ in range(5):
        world.wait(60.0)
        world.take_foreign(RecordsRenewed((SWARM + there.identity.public_key,)))
    world.announce(here)
    assert found(world, here) == {there.record()}
    world.wait(101.0)
    assert found(world, here) == set()


def test_renewal_of_a_peer_that_is_not_known_here_does_nothing() -> None:
    world = World()
    world.take_foreign(RecordsRenewed((SWARM + bytes(32), b"cut off", b"")))
    assert world.registry.lease_count == 0


def test_peer_that_left_there_is_gone_here_and_one_that_is_connected_here_does_not_expire() -> None:
    world, here, there = World(), Peer(1), Peer(2)
    world.announce(here)
    world.take_foreign(stored(there))
    for peer, reason in ((here, "expired"), (there, "left")):
        world.take_foreign(RecordRemoved(SWARM, peer.identity.public_key, reason))
    assert world.notices[here.route][-1] == Left(swarm=SWARM, peer=there.identity.public_key)
    other = Peer(3)
    world.announce(other)
    assert found(world, other) == {here.record()}


def test_bounds_hold_for_what_comes_from_others_too() -> None:
    world = World(RegistryLimits(max_leases=2))
    for number in range(1, 5):
        world.take_foreign(stored(Peer(number)))
    assert world.registry.lease_count == 2


def test_statement_published_there_is_known_here() -> None:
    world, swarm = World(), statement(2)
    world.take_foreign(StatementStored(swarm.swarm_id, swarm.raw))
    world.take_foreign(StatementStored(swarm.swarm_id, statement(1).raw))
    world.take_foreign(StatementStored(swarm.swarm_id, b"nonsense"))
    world.take_foreign(StatementRemoved(swarm.swarm_id))
    assert world.registry.statement_count == 1
