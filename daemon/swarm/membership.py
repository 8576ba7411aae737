"""A peer's place in its swarm: the statement that it goes by, and by what it and others are let in.

Invariant: whatever a rendezvous or another peer says, a statement is gone by only when the founder
signed it, it has a higher version, and it leaves the training as it is.
"""

import logging
from collections.abc import Awaitable, Callable

from daemon.host.state_dir import StateDir
from daemon.host.state_paths import ADMITTED_FILE
from daemon.net.refusals import Refusals
from daemon.swarm.admitted import AdmissionFile
from protocol.admission import NO_PROOF, AdmissionBook, DeniedError, prove_admission
from protocol.errors import ConfigError, RemoteProtocolError
from protocol.identity import PeerId
from protocol.invite import Invite
from protocol.swarm import Swarm, check_successor, open_statement
from transport.clock import Clock

_log = logging.getLogger("p2pd.peer")


class SwarmPlace:
    """One peer's. :attr:`swarm` is the newest statement that is known."""

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
        """Raises :class:`DeniedError` when this peer is not admitted itself."""
        self.swarm = swarm
        secret = invite.token_secret
        self.proof = prove_admission(secret, swarm.swarm_id, me) if secret else NO_PROOF
        """What this peer shows to be let in."""
        admitted = AdmissionFile(state_dir.path / ADMITTED_FILE)
        self.admission = AdmissionBook(swarm, admitted=admitted.read(), on_admitted=admitted.keep)
        self._state_dir = state_dir
        self._refusals = refusals
        self._clock = clock
        self.check_admission(me, self.proof)

    def check_admission(self, peer: PeerId, proof: bytes) -> None:
        """Return if ``peer`` may take part. Raises :class:`DeniedError`."""
        self.admission.check(peer, proof, now_ms=self._clock.now_ms())

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
        self._state_dir.write_statement(raw)
        return True


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

    def place_in(raw: bytes) -> SwarmPlace:
        return SwarmPlace(
            open_statement(raw, swarm_id=invite.swarm_id, now_ms=clock.now_ms()),
            invite=invite,
            me=me,
            state_dir=state_dir,
            refusals=refusals,
            clock=clock,
        )

    stored = state_dir.read_statement()
    if stored is not None:
        try:
            return place_in(stored)
        except DeniedError as error:
            _log.info("%s, by the statement stored here: asking for a newer one", error)
        except RemoteProtocolError as error:
            _log.warning("the stored swarm statement is damaged (%s); asking for it", error)
    raw = await fetch_statement()
    try:
        place = place_in(raw)
    except DeniedError as error:
        raise ConfigError(str(error)) from error
    except RemoteProtocolError as error:
        raise ConfigError(
            f"the rendezvous gave a swarm statement that does not verify: {error}"
        ) from error
    state_dir.write_statement(raw)
    return place
