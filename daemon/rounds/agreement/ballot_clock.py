"""How long a ballot lasts, and how long its leader waits. Pure: the time goes in."""

PATIENCE_S = 2.0
"""How long a leader with a quorum of promises waits for those of the other live peers."""
BALLOT_TIMEOUT_S = 20.0
"""How long a live leader gets for its ballot, fetching what it lacks included; and how long a peer
waits for a quorum to come to its ballot."""


class BallotClock:
    """The time of the ballot that a peer is in. It counts once a quorum is there: so nobody runs
    ahead alone."""

    def __init__(self) -> None:
        self.ballot = 0
        self._waits_since = 0.0
        self._quorum_since: float | None = None
        self._patient_until: float | None = None
        self._began = 0.0
        self._follows_at: float | None = None
        self._has_been_patient = False

    def begin(self, ballot: int, now: float) -> None:
        """``ballot`` is entered."""
        self.ballot = ballot
        self._began = self._waits_since = now
        self._quorum_since = self._patient_until = self._follows_at = None
        self._has_been_patient = False

    @property
    def waits_for_quorum(self) -> bool:
        """Whether no quorum has come to this ballot yet."""
        return self._quorum_since is None

    def quorum_came(self, now: float) -> None:
        """A quorum is here: the ballot's time counts from now on."""
        if self._quorum_since is None:
            self._quorum_since = now

    def get_timer(self, *others: float | None) -> float:
        """The next moment at which something is over, or one of those ``others``."""
        since = self._waits_since if self._quorum_since is None else self._quorum_since
        moments = (since + BALLOT_TIMEOUT_S, self._patient_until, self._follows_at, *others)
        return min(moment for moment in moments if moment is not None)

    def tick(self, now: float) -> None:
        """Time has passed."""
        if self._patient_until is not None and now >= self._patient_until:
            self._patient_until = None
            self._has_been_patient = True
        if self._follows_at is not None and now >= self._follows_at:
            self._follows_at = None

    def may_step_on(self, now: float) -> bool:
        """Whether this ballot lasted so long that one peer alone may draw this one to the next: so
        that nobody is drawn through all ballots at once."""
        at = self._began + PATIENCE_S
        self._follows_at = None if now >= at else at
        return now >= at

    def is_over(self, now: float) -> bool:
        """Whether the ballot has had its time."""
        return self._quorum_since is not None and now >= self._quorum_since + BALLOT_TIMEOUT_S

    def has_waited_in_vain(self, now: float) -> bool:
        """Whether a time of waiting for a quorum ends now; the next one begins then."""
        if self._quorum_since is not None or now < self._waits_since + BALLOT_TIMEOUT_S:
            return False
        self._waits_since = now
        return True

    def is_patient(self, now: float) -> bool:
        """Whether the leader waits on for those who have not promised; it does so once."""
        if self._patient_until is None and not self._has_been_patient:
            self._patient_until = now + PATIENCE_S
        return not self._has_been_patient

    def end_patience(self) -> None:
        """Nobody is waited for any more."""
        self._patient_until = None
