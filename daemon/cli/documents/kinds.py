"""The documents of the commands that have no other type for what they print with ``--json``.

What a running peer answers (status, rounds, log, transfers) has its types where it is made; the
page names them all (daemon/cli/documents/page.py).

>>> document_json(Identity(peer_id="hnvc", state_dir="/home/ada/.local/state/p2pd/digits"))
'{"schema":1,"peer_id":"hnvc","state_dir":"/home/ada/.local/state/p2pd/digits"}'
"""

from typing import Any

import msgspec

from daemon.control.status import SCHEMA, PeerStatus
from daemon.worker.rehearsed import Rehearsed
from ml.cost import RoundCost
from protocol.metric import MetricValue


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What all have in common."""

    schema: int = SCHEMA


def document_json(document: msgspec.Struct) -> str:
    """One line of JSON."""
    return msgspec.json.encode(document).decode()


class Peers(Document, frozen=True, kw_only=True):
    """The other peers."""

    peer_id: str
    """This peer's own."""
    peers: tuple[PeerStatus, ...]


class RoundTrips(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds; null without any reply."""

    min: float | None
    mean: float | None
    max: float | None


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One reply to a ping."""

    path: str
    """``direct``, ``punched``, ``ice`` or ``relay``."""
    address: str
    """The address of the path's other end."""
    rtt_ms: float


class Pings(Document, frozen=True, kw_only=True):
    """What came of some pings."""

    peer_id: str
    name: str
    asked: int
    replied: int
    path: str | None
    """The path of the last reply."""
    address: str | None
    reason: str
    """Why that path is used and not a better one; without any reply, why there was none."""
    rtt_ms: RoundTrips
    replies: tuple[Reply, ...]
    losses: tuple[str, ...]
    """Why each ping was lost that was."""


class Identity(Document, frozen=True, kw_only=True):
    """Who the peer is."""

    peer_id: str
    state_dir: str


class Page(Document, frozen=True, kw_only=True):
    """Where the page is."""

    url: str
    """It holds a token: anybody who has it can look."""


class Export(Document, frozen=True, kw_only=True):
    """The model that was written."""

    file: str
    round: int
    bytes: int


class Founded(Document, frozen=True, kw_only=True):
    """The swarm that was founded."""

    link: str
    """The invite link: anybody who has it can join."""
    swarm: str
    """The swarm's name."""
    swarm_id: str
    founder: str
    """The founder's peer id."""
    state_dir: str
    """Where its key is."""
    clock_offset_ms: int
    """The rendezvous' clock minus this machine's."""
    evaluate: str
    """Who evaluates states: ``each`` peer, one in ``turn``, ``none``."""
    evaluate_every: int
    """Of so many rounds one is evaluated; and the last one is."""


class NewInvite(Document, frozen=True, kw_only=True):
    """One more invite."""

    link: str


class Revoked(Document, frozen=True, kw_only=True):
    """An invite that was ended."""

    revoked: int
    """Its number."""


class InviteState(msgspec.Struct, frozen=True, kw_only=True):
    """One invite, as the founder's machine sees it."""

    number: int
    state: str
    """``holds``, ``expired``, ``revoked`` or ``used up``."""
    expires_ms: int
    """Unix time in milliseconds."""
    uses: int
    """How many peers it may let in; 0: any number."""
    came: tuple[str, ...]
    """The ids of the peers that this machine's peer met by it."""


class Invites(Document, frozen=True, kw_only=True):
    """All invites, the oldest first."""

    invites: tuple[InviteState, ...]


class MemberState(msgspec.Struct, frozen=True, kw_only=True):
    """A peer that was met, is named in the swarm's statement, or is banned."""

    peer_id: str
    invites: tuple[int, ...]
    """The numbers of the invites by which it came; 0 for one that is forgotten."""
    founder: bool
    named: bool
    """Whether the swarm's statement names it: then it needs no invite."""
    banned: bool
    first_met_ms: int | None
    """Unix time in milliseconds; null: never."""
    last_seen_ms: int | None


class Members(Document, frozen=True, kw_only=True):
    """Who is in the swarm, as far as this machine's peer knows."""

    members: tuple[MemberState, ...]


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting."""

    value: Any
    """Invite links and passwords are left out."""
    origin: str
    """``default``, ``command line``, ``said before`` (at an earlier ``p2pd join``), or the file or
    variable that sets it."""


class Settings(Document, frozen=True, kw_only=True):
    """What is set, and where."""

    command: str
    file: str | None
    settings: dict[str, Setting]
    """By name."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that ``doctor`` looked at."""

    what: str
    is_well: bool
    text: str
    """What was found."""
    fix: str = ""
    """What to do about it; empty when all is well."""


class Findings(Document, frozen=True, kw_only=True):
    """What ``doctor`` found."""

    findings: tuple[Finding, ...]


class DemoPeer(msgspec.Struct, frozen=True, kw_only=True):
    """How one peer of the demo came out."""

    peer_id: str
    shard: str
    """``I/N``."""
    rounds: int
    accuracy: float | None
    """Of the averaged model: the metric of that name, if the task has one, as the next."""
    accuracy_alone: float | None
    """Of what this peer reaches on its own part of the data, in as many rounds."""
    metrics: tuple[MetricValue, ...]
    """What the task measures, the leading one first; the loss where it measures nothing."""
    metrics_alone: tuple[MetricValue, ...]
    updates_received: int
    bytes_sent: int
    bytes_received: int


class DemoResult(Document, frozen=True, kw_only=True):
    """How the demo came out."""

    task: str
    rounds: int
    seconds: float
    peers: tuple[DemoPeer, ...]


class TensorKind(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor that travels between peers."""

    name: str
    dtype: str
    """As safetensors spells it."""
    shape: tuple[int, ...]
    kind: str
    """``parameter`` or ``buffer``."""


class CheckedTask(Document, frozen=True, kw_only=True):
    """A task that can be trained."""

    task: str
    file_sha256: str
    """In hex; empty for a built-in task."""
    manifest_digest: str
    parameters: int
    tensors: tuple[TensorKind, ...]
    cost: RoundCost
    rehearsal: Rehearsed
    """What two rounds with another peer in memory came to."""
