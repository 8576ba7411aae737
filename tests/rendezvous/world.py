"""A registry with a clock that the test moves, and peers that speak to it in frames."""

from collections import defaultdict
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random

from protocol.codec import decode, encode
from protocol.identity import Identity
from protocol.servers.rendezvous_messages import (
    Announce,
    FromServer,
    Joined,
    Left,
    Notice,
    Reply,
    Request,
    Signal,
)
from protocol.statements.peer_record import PeerRecord, seal_record
from protocol.statements.swarm import (
    RoundSettings,
    Swarm,
    SwarmStatement,
    TaskReference,
    seal_statement,
)
from rendezvous.server.directory import Change, Directory
from rendezvous.server.effects import Disconnect, Effect, Forward, Keep, Send, Sender, SendWhenKept
from rendezvous.server.limits import RegistryLimits
from rendezvous.server.registry import Registry
from transport.curve import CurveKeys

SWARM = b"s" * 32
OTHER_SWARM = b"o" * 32
START_MS = 1_800_000_000_000


@dataclass
class Peer:
    """Someone with keys and a connection."""

    number: int
    ip: str = "127.0.0.1"
    connection: int = 0
    identity: Identity = field(init=False)
    curve: CurveKeys = field(init=False)

    def __post_init__(self) -> None:
        self.identity = Identity(self.number.to_bytes(32, "big"))
        self.curve = CurveKeys.from_secret(sha256(b"%d" % self.number).digest())

    @property
    def route(self) -> bytes:
        return b"%d.%d" % (self.number, self.connection)

    @property
    def sender(self) -> Sender:
        return Sender(self.route, self.curve.public, self.ip)

    def record(
        self,
        sequence: int = 1,
        *,
        swarm: bytes = SWARM,
        now_ms: int = START_MS,
        curve_key: bytes | None = None,
        address: str = "192.0.2.7:4000",
    ) -> bytes:
        content = PeerRecord(
            curve_key=curve_key or self.curve.public,
            addresses=(address,),
            name=f"peer {self.number}",
            trains=True,
        )
        return seal_record(self.identity, content, swarm=swarm, sequence=sequence, now_ms=now_ms)


def statement(
    version: int = 1, *, founder: int = 900, name: str = "digits", seed: int = 1, padding: int = 0
) -> Swarm:
    """A swarm's signed statement."""
    content = SwarmStatement(
        name=name,
        nonce=b"nonce",
        version=version,
        task=TaskReference(
            name="digits",
            builtin=True,
            file_sha256=b"",
            manifest_digest=bytes(32),
            seed=seed,
            initial_state_digest=bytes(32),
        ),
        settings=RoundSettings(),
        rendezvous=("p2p://" + "a" * 52 + "@192.0.2.1:5555",),
        open=False,
        tokens=(),
        members=tuple(bytes(31) + bytes([number]) for number in range(padding)),
        banned=(),
    )
    return seal_statement(Identity(founder.to_bytes(32, "big")), content)


class World:
    """Carries frames to a registry, and its effects to whom they are meant for."""

    def __init__(self, limits: RegistryLimits | None = None, *, is_shared: bool = False) -> None:
        self.registry = Registry(limits or RegistryLimits(), Random(7), is_shared=is_shared)
        self.now = 1000.0
        self.now_ms = START_MS
        self.notices: defaultdict[bytes, list[Notice]] = defaultdict(list)
        self.disconnected: list[tuple[bytes, str]] = []
        self.changes: list[Change] = []
        self.directory = Directory()
        self.full_routes: set[bytes] = set()
        self.disk_is_full = False

    def restart(self, limits: RegistryLimits) -> "World":
        """Another world in which the registry begins with what this one's store kept."""
        after = World(limits)
        after.now, after.now_ms = 5.0, self.now_ms
        after.directory = self.directory
        kept = Directory(dict(self.directory.statements), dict(self.directory.records))
        effects = after.registry.restore(kept, now=after.now, now_ms=after.now_ms)
        after._act(effects, defaultdict(list))
        return after

    def ask(self, peer: Peer, request: Request) -> Reply:
        """The one reply to ``request``."""
        [reply] = self.send(peer, encode(request))
        assert reply.request == request.request
        return reply

    def announce(self, peer: Peer, sequence: int = 1, *, swarm: bytes = SWARM) -> Reply:
        record = peer.record(sequence, swarm=swarm, now_ms=self.now_ms)
        return self.ask(peer, Announce(request=1, record=record))

    def send(self, peer: Peer, frame: bytes) -> list[Reply]:
        """All replies that ``peer`` gets for ``frame``."""
        replies: dict[bytes, list[Reply]] = defaultdict(list)
        effects = self.registry.receive(peer.sender, frame, now=self.now, now_ms=self.now_ms)
        self._act(effects, replies)
        assert set(replies) <= {peer.route}, "only the asker gets replies"
        return replies[peer.route]

    def take_foreign(self, change: Change) -> None:
        """Another rendezvous of the same store made this change."""
        effects = self.registry.take_foreign(change, now=self.now, now_ms=self.now_ms)
        assert not any(isinstance(effect, Keep) for effect in effects), "it is in the store"
        self._act(effects, defaultdict(list))

    def look_around(self) -> None:
        """Handle the timer, as a service does each second."""
        self._act(self.registry.handle_timer(self.now), defaultdict(list))

    def wait(self, seconds: float) -> None:
        """Let time pass, with timers handled when they are due."""
        end = self.now + seconds
        while (due := self.registry.get_timer()) is not None and due <= end:
            self.now_ms += round((max(due, self.now) - self.now) * 1000)
            self.now = max(due, self.now)
            self.look_around()
        self.now_ms += round((end - self.now) * 1000)
        self.now = end

    def _act(self, effects: list[Effect], replies: dict[bytes, list[Reply]]) -> None:
        for effect in effects:
            match effect:
                case Send(route, frame):
                    self._deliver(route, frame, replies)
                case Forward(route, frame, sender, done, failed):
                    arrived = route not in self.full_routes
                    if arrived:
                        self._deliver(route, frame, replies)
                    self._deliver(sender, done if arrived else failed, replies)
                case Keep(change):
                    self.changes.append(change)
                    self.directory.apply(change)
                case SendWhenKept(route, frame, failed):
                    self._deliver(route, failed if self.disk_is_full else frame, replies)
                case Disconnect(route, reason):
                    self.disconnected.append((route, reason))

    def _deliver(self, route: bytes, frame: bytes, replies: dict[bytes, list[Reply]]) -> None:
        message: FromServer = decode(frame, FromServer)
        match message:
            case Joined() | Left() | Signal():
                self.notices[route].append(message)
            case _:
                replies[route].append(message)
