"""Which peers of a roster count at the moment, as one peer sees it, and whether they are enough."""

from collections.abc import Iterable, Mapping

from daemon.rounds.agreement.quorums import Quorums
from protocol.identity import PeerId


class Electorate:
    """The roster of one round, with who lives, who hangs and whose votes count no more."""

    def __init__(self, me: PeerId, roster: frozenset[PeerId]) -> None:
        self.quorums = Quorums(roster)
        self._me = me
        self._roster = roster
        self._live = roster
        self._offenders: frozenset[PeerId] = frozenset()
        self._passed_over: frozenset[PeerId] = frozenset()
        self._is_mute = False

    @property
    def has_me(self) -> bool:
        """Whether this peer is in the roster."""
        return self._me in self._roster

    @property
    def living(self) -> frozenset[PeerId]:
        """Who counts as live: not who hangs, if enough are left, nor whose votes count no more, nor
        this peer while it cannot vote and others can."""
        live = self._live - self._offenders
        if self._is_mute:
            live = live - {self._me} or live
        rest = live - self._passed_over
        return rest if 2 * len(rest) > len(self._roster) else live

    def update(self, live: frozenset[PeerId], offenders: frozenset[PeerId]) -> bool:
        """Who can answer, and who contradicted itself; True if that is news."""
        live = (live | {self._me}) & self._roster
        offenders -= {self._me}
        if (live, offenders) == (self._live, self._offenders):
            return False
        self._live, self._offenders = live, offenders
        return True

    def set_mute(self, is_mute: bool) -> None:
        """Whether this peer cannot vote: the others go on as if it were gone, and so it counts."""
        self._is_mute = is_mute

    def hear(self, peer: PeerId) -> None:
        """``peer`` does not hang."""
        self._passed_over -= {peer}

    def pass_over_who_is_behind(self, ballots: Mapping[PeerId, int], ballot: int) -> None:
        """Wait no longer for peers that have not come to ``ballot`` by the end of its time."""
        self._passed_over = frozenset(
            peer for peer in self._live - {self._me} if ballots.get(peer, -1) < ballot
        )

    def is_quorum(self, peers: Iterable[PeerId]) -> bool:
        """Whether they are enough to prove something to this peer."""
        return self.quorums.is_quorum(frozenset(peers), self.living)

    def is_vote(self, peers: Iterable[PeerId]) -> bool:
        """Whether so many voted for something, those not counted who contradicted themselves."""
        return self.is_quorum(frozenset(peers) - self._offenders)

    def counted(self, votes: Mapping[PeerId, bytes]) -> dict[PeerId, bytes]:
        """The votes of those who did not contradict themselves."""
        return {peer: raw for peer, raw in votes.items() if peer not in self._offenders}

    def are_most(self, peers: Iterable[PeerId]) -> bool:
        """Whether they are so many that this peer goes along."""
        return self.quorums.are_most(frozenset(peers) - self._offenders, self.living)

    def is_reason_to_close(self, peers: Iterable[PeerId]) -> bool:
        """Whether one of them at least is honest, and no one is alone."""
        others = frozenset(peers) - self._offenders - {self._me}
        return len(others) >= self.quorums.to_follow

    def makes_others_come(self, peers: Iterable[PeerId]) -> bool:
        """Whether whoever is honest comes to the ballot in which it is shown these."""
        shown = frozenset(peers) - self._offenders
        return len(shown) >= self.quorums.to_follow

    def ballot_to_follow(self, ballots: Mapping[PeerId, int]) -> int:
        """The latest ballot that more peers than can lie together have come to; 0 if none."""
        others = ballots.keys() - self._offenders - {self._me}
        reached = sorted((ballots[peer] for peer in others), reverse=True)
        enough = self.quorums.to_follow
        return reached[enough - 1] if len(reached) >= enough else 0

    def may_follow_one(self, ballots: Mapping[PeerId, int], ballot: int) -> bool:
        """Whether so few live that one who is in a later ballot than ``ballot`` is reason enough
        to go a step its way."""
        others = ballots.keys() - self._offenders - {self._me}
        return len(self.living) < 3 and any(ballots[peer] > ballot for peer in others)
