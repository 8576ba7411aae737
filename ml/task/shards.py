"""The samples of a training set that belong to shard I of N, the same on every machine.

The shards of one (seed, N, partition) are disjoint and together complete, so peers need not talk to
split a data set; it does no harm if some of the N shards have no peer.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ml.task.seeds import derive_seed, permutation
from protocol.errors import ConfigError

Indices = NDArray[np.int64]

_MAX_DIRICHLET_TRIES = 100
_WANTED_SAMPLES = 10
"""Dirichlet shards smaller than this are drawn again, as is usual in the literature."""


@dataclass(frozen=True, slots=True)
class Partition:
    """How a data set is split: evenly, or skewed as the data of real people is.

    ``iid``; ``dirichlet:ALPHA`` (each class is dealt out in Dirichlet proportions, arXiv
    1909.06335); ``labels:K`` (each shard has about K classes, arXiv 1602.05629);
    ``quantity:ALPHA`` (Dirichlet sizes, every shard with all classes).

    >>> thirds = [shard_indices(9, i, 3, 7, Partition.parse("iid")) for i in range(3)]
    >>> sorted(int(sample) for third in thirds for sample in third)
    [0, 1, 2, 3, 4, 5, 6, 7, 8]
    """

    kind: Literal["iid", "dirichlet", "labels", "quantity"]
    amount: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Partition":
        """Read its spelling in settings. Raises :class:`ConfigError`."""
        kind, _, amount_text = text.partition(":")
        try:
            amount = float(amount_text or "0")
        except ValueError:
            amount = -1.0
        match kind:
            case "iid" if not amount_text:
                return cls("iid")
            case "dirichlet" | "quantity" if 0 < amount < float("inf"):
                return cls(kind, amount)
            case "labels" if amount >= 1 and amount == int(amount):
                return cls(kind, amount)
        raise ConfigError(f"partition {text!r}: write iid, dirichlet:0.3, labels:2 or quantity:0.5")

    @property
    def needs_labels(self) -> bool:
        """Whether the classes of the samples have to be known."""
        return self.kind in ("dirichlet", "labels")


def shard_indices(
    sample_count: int,
    shard_index: int,
    shard_count: int,
    seed: int,
    partition: Partition,
    labels: NDArray[np.int64] | None = None,
) -> Indices:
    """The samples of shard ``shard_index`` (from 0) of ``shard_count``, sorted.

    ``labels``: the class of every sample, where the partition needs it. Raises
    :class:`ConfigError` for a shard without samples.
    """
    if not 0 <= shard_index < shard_count:
        raise ConfigError(f"shard {shard_index}/{shard_count}: the first is 0/{shard_count}")
    if labels is None:
        if partition.needs_labels:
            raise ConfigError(f"partition {partition.kind} needs the label of every sample")
        labels = np.zeros(sample_count, np.int64)
    match partition.kind:
        case "iid":
            shard = permutation(sample_count, seed, "shards")[shard_index::shard_count]
        case "quantity":
            shard = _by_proportions(
                np.zeros(sample_count, np.int64), shard_index, shard_count, seed, partition.amount
            )
        case "dirichlet":
            shard = _by_proportions(labels, shard_index, shard_count, seed, partition.amount)
        case _:
            shard = _by_class_pieces(labels, shard_index, shard_count, seed, int(partition.amount))
    if not shard.size:
        raise ConfigError(
            f"shard {shard_index}/{shard_count} has none of the {sample_count} training samples;"
            " use fewer shards"
        )
    return np.sort(shard)


def _by_proportions(
    labels: Indices, shard_index: int, shard_count: int, seed: int, alpha: float
) -> Indices:
    """Deal each class out in proportions drawn from a symmetric Dirichlet distribution."""
    order = permutation(labels.size, seed, "shards")
    classes = [order[labels[order] == label] for label in np.unique(labels)]
    enough = min(_WANTED_SAMPLES, labels.size // (2 * shard_count))
    best: list[list[Indices]] = []
    best_smallest = -1
    for attempt in range(_MAX_DIRICHLET_TRIES):
        # RandomState's streams are frozen (NEP 19), Generator's are not.
        random = np.random.RandomState(derive_seed(seed, "proportions", attempt) % 2**32)
        dealt = []
        for members in classes:
            proportions = random.dirichlet(np.full(shard_count, alpha))
            cuts = np.rint(np.cumsum(proportions)[:-1] * members.size).astype(np.int64)
            dealt.append(np.split(members, cuts))
        smallest = min(sum(parts[i].size for parts in dealt) for i in range(shard_count))
        if smallest > best_smallest:
            best, best_smallest = dealt, smallest
        if smallest >= enough:
            break
    return np.concatenate([parts[shard_index] for parts in best])


def _by_class_pieces(
    labels: Indices, shard_index: int, shard_count: int, seed: int, per_shard: int
) -> Indices:
    """Sort by class, cut into ``shard_count * per_shard`` pieces, deal them out."""
    order = permutation(labels.size, seed, "shards")
    by_class = order[np.argsort(labels[order], kind="stable")]
    pieces = np.array_split(by_class, shard_count * per_shard)
    mine = permutation(len(pieces), seed, "pieces")[shard_index::shard_count]
    return np.concatenate([pieces[piece] for piece in mine])
