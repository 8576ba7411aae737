"""One session for each pair of peers, above any number of paths. Sans-IO.

Needs `protocol` alone. Not in it: sockets, how paths are found (`paths`), who keeps the sessions
(`peers`), and what the messages mean.

Theory of operation
===================

**What it promises.** Two peers talk through one :class:`Session` each. Whoever hands a message to
:meth:`Session.send` and gets ``True`` may forget it: it arrives once, whole, and in the order of
its stream, as long as both processes live and some path comes back within two minutes. Nothing else
is promised. When the session is lost after all, both sides are told, and messages on their way are
lost with it. Rounds are built for that: whoever lacks something asks again.

**What it does not trust.** A *path* is a TCP connection, a punched one, a QUIC flow, or a relay. A
path may lose frames (libzmq reconnects silently, and what was in flight is gone), double them,
reorder them, or fall silent without an end. So the session does what TCP does, once more and above
all of them: it numbers, acknowledges, keeps and repeats. In return a path may be replaced at any
moment, and nobody above notices.

**Frames** (``protocol/peers/session_frames.py``) are as large as what the path carries in 20 to
100 ms, from 4 KiB to 257 KiB. ``Data`` carries a piece of a message; ``Ack`` says what
has arrived, and how much more may be sent; ``Ping`` and ``Pong`` measure a path and keep it alive;
``Hello`` and ``Close`` belong to the path (``handshake.py``) and never reach the session.

**Two streams**, control and bulk, are numbered apart. Control goes first. A chunk of a model never
delays an agreement message by more than what already is inside the path; ``in_flight_limit.py``
keeps that small, as LEDBAT does: it watches how long arrivals take, and what exceeds the shortest
time was spent in a queue. An ``Ack`` says when it was made, so that its own way back does not
count.

**Sending** (``send_stream.py``). A message waits in the queue, is cut into fragments, and each
fragment is kept until an ``Ack`` covers it. A fragment that was sent clearly before one that has
arrived counts as lost, and is sent again (RACK, RFC 8985); among lanes each has an order of its
own. Where nothing was sent behind it, a ping was, once a second: who answers one says before what
has arrived, so what was sent before the ping and is not named is lost. No timeout sends anything
again: a line may be slow, or stand still, and deliver all the same. When a
path is lost, all that was in flight on it is sent again over the next one.

**Receiving** (``receive_stream.py``). Fragments ahead of a gap wait for it, doubles are dropped.
*Credit* bounds what waits: a sender may have sent so many bytes since the beginning, each frame
counted with 256 bytes on top, and a receiver grants more only when its application has taken
messages out. A sender that goes beyond its credit breaks the protocol. A hello says
what is granted and grants nothing: the window may have shrunk when a path comes of it.

**Epochs.** Each session of a process has a random number, its *epoch*. The hellos of a path name
both, and say up to which frame each side has received (the *resume point*). Equal epochs: go on
from there, over this path too. Another epoch of the remote side: its process restarted, or gave the
session up, so numbering begins anew and what was queued for the old one is gone. An epoch that was
replaced before comes too late and is refused.

**Which path.** Of the paths that were heard in the last 3 s (*usable*) the one with the highest
score is *active*: control and acknowledgements go over it, or over another one of its kind while it
is stuck. Bulk goes over it and all other usable paths of its kind, the *lanes*, over each as much
as it takes. There are several only where the owner finds that one carries little of the line
(``peers/lane_trial.py``), and no more of them carry bulk than it says; from four on one carries
none. Paths of other kinds carry pings. The score is the owner's (``peers/path_score.py``). Among
equals the active one stays. A path that was silent for 10 s is given up, and its owner closes it. A
better path is taken at once, in place: to the session that is a resume like any other.

**States** (``states.py``; docs/sessions.md has the drawing)::

    NEW ──first path──▶ OPEN ◀──a path is usable / none is──▶ WAITING ──for 120 s──▶ CLOSED
     ▲                    │                                       │
     └────────────────────┴──── the remote process restarted ─────┘

``NEW`` takes no messages: there is nobody to number them with. ``WAITING`` takes them until its
queue is full, and keeps all for a resume. ``CLOSED`` keeps nothing; the owner begins another
session, and thereby another epoch.

**Live** is another question, and the one that rounds ask: was the peer heard within 5 s? Without
any path, not even a silent one, it is answered with no after 2 s already, since then its process
has most likely ended. A session may be ``WAITING`` while the peer is live, and ``OPEN`` while it is
not. The events ``PeerUp`` and ``PeerDown`` tell of this, never of the state.

**Time.** ``now`` is monotonic seconds, and comes with every call. If nothing was called for 3 s
although a timer is always set, this process itself did not run (SIGSTOP, a suspended laptop): the
silence was its own, and the others' clocks start again.

**The owner's part** (``peers/remote_peer.py``). After each call, until there is no more: send what
:meth:`Session.next_frame` gives, do what :meth:`Session.next_event` tells, and call
:meth:`Session.handle_timer` at :meth:`Session.deadline`. A path that does not take a frame is told
with :meth:`Session.frame_refused`. Two sessions and a path that loses nothing::

    >>> def begin(epoch):
    ...     return Session(own_epoch=epoch, limits=SessionLimits(), now=0.0)
    >>> ann, bob = begin(b"epoch--A"), begin(b"epoch--B")
    >>> for_ann, for_bob = bob.resume_point(ann.own_epoch), ann.resume_point(bob.own_epoch)
    >>> ann.attach_path(1, remote_epoch=bob.own_epoch, resume=for_ann, score=1.0, now=0.0)
    >>> bob.attach_path(1, remote_epoch=ann.own_epoch, resume=for_bob, score=1.0, now=0.0)
    >>> ann.send(Stream.CONTROL, b"good morning")
    True
    >>> while (frame := ann.next_frame(0.0)) is not None:
    ...     bob.receive_frame(frame.path_id, frame.data, 0.0)
    >>> bob.next_event(), bob.next_event()
    (PeerUp(), ActivePathChanged(path_id=1))
    >>> bob.next_event().message
    b'good morning'

**Errors.** :class:`RemoteProtocolError` ends the session: the remote side sent what cannot be (a
frame beyond its credit, an acknowledgement of what was never sent), so the two no longer agree and
the owner throws it away. :class:`TransportError` concerns one path, and costs nothing but that.

**Bounds.** Queues and windows are set with :class:`SessionLimits` and shared out among all peers by
the network; answers to pings, ranges in an ``Ack``, retired epochs and paths have fixed limits.
Nothing that the remote side sends makes any of them grow.
"""

from daemon.net.session.events import (
    ActivePathChanged,
    BulkRoom,
    Event,
    MessageReceived,
    PathFailed,
    PeerDown,
    PeerUp,
    SessionExpired,
    SessionReset,
)
from daemon.net.session.session import OutgoingFrame, Session, StaleEpochError
from daemon.net.session.states import SessionState
from daemon.net.session.streams import SessionLimits
from protocol.peers.session_frames import Stream

__all__ = [
    "ActivePathChanged",
    "BulkRoom",
    "Event",
    "MessageReceived",
    "OutgoingFrame",
    "PathFailed",
    "PeerDown",
    "PeerUp",
    "Session",
    "SessionExpired",
    "SessionLimits",
    "SessionReset",
    "SessionState",
    "StaleEpochError",
    "Stream",
]
