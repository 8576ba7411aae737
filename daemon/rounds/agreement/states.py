"""The states of a peer in a round's agreement, and what takes it from one to the next.

The table is what the code goes by; the drawing in docs/agreement.md is made from it, and a
test compares the two.

>>> TRANSITIONS[AgreementState.PREPARED, Cause.QUORUM_PREPARED].name
'ACCEPTED'
>>> (AgreementState.DECIDED, Cause.NEW_BALLOT) in TRANSITIONS
False
"""

import enum


class AgreementState(enum.Enum):
    """This peer's state in the instance."""

    OPEN = "open"
    """Collecting updates; no promise given yet."""
    PROMISED = "promised"
    """Closed; waiting for a proposal (or, as the ballot's leader, for promises)."""
    FETCHING = "fetching"
    """A sound proposal is here but not all of its updates."""
    PREPARED = "prepared"
    """Voted for the proposal; waiting for the Prepares of a quorum."""
    ACCEPTED = "accepted"
    """Saw them, and said so; waiting for the Accepts of a quorum."""
    DECIDED = "decided"
    FAILED = "failed"
    """Out of ballots: the round is given up."""


class Cause(enum.Enum):
    """What takes a peer from one state to another."""

    NEW_BALLOT = "closes, or enters the next ballot"
    LACKS_UPDATES = "sound proposal, lacks some of its updates"
    HOLDS_UPDATES = "sound proposal, holds its updates"
    QUORUM_PREPARED = "quorum of Prepares"
    CERTIFICATE = "quorum of Accepts, or a certificate"
    OUT_OF_BALLOTS = "no ballot is left"


_S, _C = AgreementState, Cause
_CLOSED = (_S.PROMISED, _S.FETCHING, _S.PREPARED, _S.ACCEPTED)

TRANSITIONS: dict[tuple[AgreementState, Cause], AgreementState] = {
    (_S.OPEN, _C.NEW_BALLOT): _S.PROMISED,
    (_S.PROMISED, _C.LACKS_UPDATES): _S.FETCHING,
    (_S.PROMISED, _C.HOLDS_UPDATES): _S.PREPARED,
    (_S.FETCHING, _C.HOLDS_UPDATES): _S.PREPARED,
    (_S.PREPARED, _C.QUORUM_PREPARED): _S.ACCEPTED,
    **{(state, _C.NEW_BALLOT): _S.PROMISED for state in _CLOSED},
    **{(state, _C.CERTIFICATE): _S.DECIDED for state in (_S.OPEN, *_CLOSED)},
    **{(state, _C.OUT_OF_BALLOTS): _S.FAILED for state in _CLOSED},
}
"""No other transition happens."""
