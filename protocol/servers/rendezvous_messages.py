"""What peers and a rendezvous say to each other, over ZeroMQ DEALER and ROUTER with CURVE.

Every request carries a number that its reply repeats. Notices come without being asked for. The
rendezvous knows a connection by its CURVE key (``User-Id``), never by its routing id.
"""

from protocol.codec import Message

MAX_FRAME_BYTES = 128 * 1024
MAX_LOOKUP = 50
MAX_MEMBERS = 4000
"""Ids of 32 bytes in an answer: so many fit in a frame."""


class Announce(Message, tag="announce"):
    """Take or renew the lease of the peer whose signed record this is, and subscribe to notices."""

    request: int
    record: bytes


class Heartbeat(Message, tag="heartbeat"):
    """Renew the lease without a new record; the connection's CURVE key says whose."""

    request: int
    swarm: bytes


class Leave(Message, tag="leave"):
    """Give the lease back."""

    request: int
    swarm: bytes


class Lookup(Message, tag="lookup"):
    """Ask for a random sample of at most ``want`` records of a swarm."""

    request: int
    swarm: bytes
    want: int


class Find(Message, tag="find"):
    """Ask for one record, by public identity key or by CURVE key (32 bytes; the other is empty)."""

    request: int
    swarm: bytes
    peer: bytes
    curve_key: bytes


class ListMembers(Message, tag="members"):
    """Ask for the ids of all peers of a swarm."""

    request: int
    swarm: bytes


class PublishStatement(Message, tag="publish"):
    """Store a signed swarm statement; the highest version is kept."""

    request: int
    statement: bytes


class FetchStatement(Message, tag="fetch"):
    """Ask for the stored statement of a swarm.

    >>> from protocol.codec import decode, encode
    >>> decode(encode(FetchStatement(1, bytes(32))), FetchStatement).request
    1
    """

    request: int
    swarm: bytes


class SendSignal(Message, tag="signal"):
    """Pass a sealed signal on to a peer of the swarm that is connected now."""

    request: int
    swarm: bytes
    to: bytes
    """Public identity key of the receiver."""
    sealed: bytes


class AskTime(Message, tag="time"):
    """Ask what time it is, before anything is signed: the first message of each connection.

    Its number is 0. A server that does not know it answers ``malformed``, also to number 0.
    """

    request: int


class Describe(Message, tag="describe"):
    """Ask what else the server is, besides a rendezvous."""

    request: int


Request = (
    Announce
    | Heartbeat
    | Leave
    | Lookup
    | Find
    | ListMembers
    | PublishStatement
    | FetchStatement
    | SendSignal
    | Describe
    | AskTime
)


class Granted(Message, tag="granted"):
    """The lease stands."""

    request: int
    lease_s: float
    interval_s: float
    """When to renew; the server spreads it by ± 20 %."""
    server_time_ms: int
    observed_address: str
    """The address that the request came from, without port; empty when the host cannot tell."""
    stun_ports: tuple[int, ...]
    """The ports at which the same host answers STUN, over UDP and TCP."""


class ServerTime(Message, tag="server-time"):
    """The server's time."""

    request: int
    server_time_ms: int


class Records(Message, tag="records"):
    """Signed records, as their peers sent them."""

    request: int
    records: tuple[bytes, ...]
    total: int
    """How many peers the swarm has here."""


class MemberList(Message, tag="member-list"):
    """Who has a lease in a swarm."""

    request: int
    peers: bytes
    """Public identity keys of 32 bytes, one after the other, in any order; in a swarm of more than
    ``MAX_MEMBERS`` the lowest."""


class Statement(Message, tag="statement"):
    """A stored swarm statement."""

    request: int
    statement: bytes


class Description(Message, tag="description"):
    """The services at the server's host, under the server's own key: for a founder, or for somebody
    who looks at a network without joining a swarm."""

    request: int
    relays: bool
    """Whether it is a relay too."""
    other_ports: tuple[int, ...]
    """The ports on which it listens besides the one in its URI."""
    observed_address: str
    """As in :class:`Granted`."""
    stun_ports: tuple[int, ...]
    """As in :class:`Granted`, too."""


class Done(Message, tag="done"):
    """Done, nothing to tell."""

    request: int


class Refused(Message, tag="refused"):
    """The request was refused, and why."""

    request: int
    code: str
    """``malformed``, ``denied``, ``stale``, ``quota``, ``retry_after``, ``unknown`` or
    ``version``."""
    text: str
    retry_after_s: float


Reply = Granted | ServerTime | Records | MemberList | Statement | Description | Done | Refused


class Joined(Message, tag="joined"):
    """Notice: a peer came, or has a new record."""

    record: bytes


class Left(Message, tag="left"):
    """Notice: a peer's lease ended or was given back."""

    swarm: bytes
    peer: bytes


class Signal(Message, tag="signaled"):
    """Notice: another peer of the swarm sent this sealed signal. The signal itself proves who."""

    swarm: bytes
    sealed: bytes
    sender: bytes = b""
    """Public identity key of the peer whose connection it came over, as the rendezvous knows it."""
    seen_at: str = ""
    """The IP address that this connection comes from; empty when the host cannot tell."""


Notice = Joined | Left | Signal
FromServer = Reply | Notice
