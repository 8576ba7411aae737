"""Which path to one peer is preferred now: by kind, by what carries more, or because it is
measured.
"""

from collections.abc import Collection

from daemon.net.path_kind import PathKind
from daemon.net.paths.path import Path
from daemon.net.peers.path_end import PathEnd
from daemon.net.peers.path_score import Preferred, score
from daemon.net.peers.rate_trial import RateTrial, Stage
from protocol.identity import PeerId
from protocol.peers.hello import Role
from protocol.peers.lane_messages import MAX_LANES


class PathPreference:
    """Which of one peer's paths to use for what this side sends."""

    def __init__(self, own_id: PeerId, peer_id: PeerId) -> None:
        self.pinned: PathKind | None = None
        """The kind to be used now, whatever is better."""
        self._own_id = own_id
        self._peer_id = peer_id
        self._trial = RateTrial()

    @property
    def preferred(self) -> Preferred | None:
        """The worse kind that is used instead of a better one, since it was found to be faster or
        is being tried."""
        return self._trial.preferred

    @property
    def wanted(self) -> frozenset[PathKind]:
        """The kinds of which a path is wanted besides a better one, to be tried or used."""
        return self._trial.wanted

    @property
    def is_settled(self) -> bool:
        """Whether no other kind is being tried."""
        return self._trial.stage in (Stage.WATCHING, Stage.KEEPING)

    def is_faster(self, kind: PathKind) -> bool:
        """Whether ``kind`` is used instead of a better one."""
        return self.preferred is not None and self.preferred.kind is kind

    def score(self, path: Path) -> float:
        """Higher is better; see :func:`daemon.net.peers.path_score.score`."""
        return score(
            path,
            own_id=self._own_id,
            peer_id=self._peer_id,
            preferred=self.preferred,
            pinned=self.pinned,
        )

    def spare(
        self, ends: Collection[PathEnd], usable: Collection[PathEnd], most: int
    ) -> list[PathEnd]:
        """Those of ``ends``, all of one kind, that are to be closed so that there are at most so
        many. ``usable`` are those whose paths were heard a moment ago. Each side closes what it
        opened, and what is far beyond."""
        best_first = sorted(
            ends,
            # A newer one was made because the older one was broken, if only for the other side.
            key=lambda end: (end in usable, self.score(end.path), end.number),
            reverse=True,
        )
        return [
            end
            for number, end in enumerate(best_first)
            if number >= most
            and (end.path.channel.role is Role.INITIATOR or number >= most + MAX_LANES)
        ]

    def note(
        self,
        kind: PathKind | None,
        sent_bytes: int,
        *,
        is_busy: bool,
        available: Collection[PathKind],
        now: float,
    ) -> bool:
        """What the path in use carries, see :meth:`RateTrial.note`; True if scores are others
        now."""
        if self.pinned is not None:
            return False
        before = self.preferred
        self._trial.note(kind, sent_bytes, is_busy=is_busy, available=available, now=now)
        return self.preferred != before
