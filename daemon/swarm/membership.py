"""A peer's place in its swarm: the statement that it follows, and the rules that let it and others
in.

Invariants: whatever a rendezvous or another peer says, a statement takes effect only when the
founder signed it, it has a higher version, and it leaves the training as it is. It counts from that
moment on, whether or not the disk takes it; :meth:`SwarmPlace.keep_saved` tries again until it
does.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from daemon.host.damaged import put_aside
from daemon.host.state_dir import StateDir
from daemon.host.state_paths import ADMITTED_FILE, STATEMENT_FILE
from daemon.net.refusals import Refusals
from daemon.swarm.admitted import AdmittedFile
from protocol.errors import ConfigError, RemoteProtocolError
from protocol.identity import PeerId
from protocol.statements.admission import NO_PROOF, AdmissionBook, DeniedError, prove_admission
from protocol.statements.invite import Invite
from protocol.statements.swarm import Swarm, check_successor, is_banned, open_statement
from transport.clock import Clock

SAVE_AGAIN_S = 10.0

_log = logging.getLogger("p2pd.peer")


class SwarmPlace:
    """This peer's place in its swarm. :attr:`swarm` is the newest statement that is known.

    Example (daemon/peer.py)::

        place = await find_place(
        check_options(place.swarm.statement, self._options)
        work.create_task(place.keep_saved(network.live_peers)),
    """

    def __init__(
        self,
        swarm: Swarm,
        *,
        invite: Invite,
        me: PeerId,
        state_dir: StateDir,
        refusals: Refusals,
        clock: Clock,
    ) -> None:
        self.swarm = swarm
        secret = invite.token_secret
        self.proof = prove_admission(secret, swarm.swarm_id, me) if secret else NO_PROOF
        """What this peer shows to be let in."""
        self._admitted = AdmittedFile(state_dir.path / ADMITTED_FILE)
        self.admission = AdmissionBook(swarm, met=self._admitted.open(), memory=self._admitted)
        self._state_dir = state_dir
        self._refusals = refusals
        self._clock = clock
        self._me = me
        self._unsaved = ""

    def enter(self) -> None:
        """This peer uses its own invite. Raises :class:`DeniedError` when that lets it in no more
        than it would let in others."""
        try:
            self.check_admission(self._me, self.proof)
        except DeniedError:
            # By the rendezvous's time it may hold. Whoever was given it just now has a clock that
            # is wrong; and nobody lies to a peer to let in that peer itself.
            self.admission.check(self._me, self.proof, now_ms=self._clock.now_ms())
            self._clock.follow_servers()
        self.admission.meet(self._me, self.proof, now_ms=self._clock.now_ms())

    @property
    def is_banned(self) -> bool:
        """Whether this peer is."""
        return is_banned(self.swarm, self._me)

    def check_admission(self, peer: PeerId, proof: bytes) -> None:
        """Return if ``peer`` may take part. Raises :class:`DeniedError`."""
        self.admission.check(peer, proof, now_ms=self._clock.expiry_ms())

    def take_statement(self, peer: PeerId | None, raw: bytes) -> bool:
        """``peer`` (None: a rendezvous) has this statement: whether it is a newer one, which is
        gone by and kept from now on."""
        if raw == self.swarm.raw:
            return False
        try:
            newer = open_statement(raw, swarm_id=self.swarm.swarm_id, now_ms=self._clock.now_ms())
            if not check_successor(self.swarm, newer):
                return False
        except RemoteProtocolError as error:
            if peer is None:
                _log.warning("a rendezvous has a swarm statement that is refused: %s", error)
            else:
                self._refusals.add(peer, "statement", error)
            return False
        _log.info(
            "swarm statement version %d replaces %d",
            newer.statement.version,
            self.swarm.statement.version,
        )
        self.swarm = newer
        self.admission.replace_statement(newer)
        self.save()
        return True

    @property
    def unsaved(self) -> str:
        """What a restart would not know, and why; empty: nothing."""
        admitted = self._admitted.trouble
        return self._unsaved or (admitted and f"who was let in: {admitted}")

    def save(self) -> None:
        """Store the statement. A failure is noted and logged, not raised."""
        try:
            self._state_dir.write_statement(self.swarm.raw)
        except ConfigError as error:
            if not self._unsaved:
                _log.warning("the newest swarm statement counts, but is not stored: %s", error)
            self._unsaved = f"the newest swarm statement: {error}"
        else:
            self._unsaved = ""

    async def keep_saved(
        self, live_peers: Callable[[], Iterable[PeerId]], *, interval_s: float = SAVE_AGAIN_S
    ) -> None:
        """Try again to store what could not be stored, and note who is here; until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            if self._unsaved:
                self.save()
            self._admitted.save()
            self.admission.note_seen(live_peers(), now_ms=self._clock.now_ms())


async def find_place(
    invite: Invite,
    me: PeerId,
    state_dir: StateDir,
    *,
    fetch_statement: Callable[[], Awaitable[bytes]],
    refusals: Refusals,
    clock: Clock,
) -> SwarmPlace:
    """The place by the newest statement that is stored here, else by the rendezvous' one.

    Raises :class:`ConfigError` when there is none, or the swarm does not let this peer in.
    """

    def place_in(swarm: Swarm) -> SwarmPlace:
        return SwarmPlace(
            swarm,
            invite=invite,
            me=me,
            state_dir=state_dir,
            refusals=refusals,
            clock=clock,
        )

    known = _read_known(invite, state_dir, clock)
    if known is None:
        raw = await fetch_statement()
        try:
            place = place_in(open_statement(raw, swarm_id=invite.swarm_id, now_ms=clock.now_ms()))
            place.enter()
        except DeniedError as error:
            raise ConfigError(str(error)) from error
        except RemoteProtocolError as error:
            raise ConfigError(
                f"the rendezvous gave a swarm statement that does not verify: {error}"
            ) from error
        place.save()
        return place
    place = place_in(known)
    try:
        place.enter()
    except DeniedError as error:
        _log.info("%s, by the statement stored here: asking for a newer one", error)
        place.take_statement(None, await fetch_statement())
        _enter_again(place)
    return place


def _read_known(invite: Invite, state_dir: StateDir, clock: Clock) -> Swarm | None:
    stored = state_dir.read_statement()
    if stored is None:
        return None
    try:
        return open_statement(stored, swarm_id=invite.swarm_id, now_ms=clock.now_ms())
    except RemoteProtocolError as error:
        put_aside(state_dir.path / STATEMENT_FILE, error, "a rendezvous is asked for it")
        return None


def _enter_again(place: SwarmPlace) -> None:
    """A peer that was in this swarm before and forgot that it was let in, or is out by now."""
    try:
        place.enter()
    except DeniedError as error:
        if place.is_banned:
            raise ConfigError(str(error)) from error
        _log.warning("%s; those who met this peer before may still let it in", error)
