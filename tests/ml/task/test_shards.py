import hashlib

import numpy as np
import pytest

from ml.task.seeds import derive_seed, permutation
from ml.task.shards import Indices, Partition, shard_indices
from protocol.errors import ConfigError

LABELS = np.arange(1000, dtype=np.int64) % 10
PARTITIONS = ["iid", "dirichlet:0.3", "dirichlet:100", "labels:2", "quantity:0.5"]


def split(partition: str, shard_count: int, seed: int = 1) -> list[Indices]:
    rule = Partition.parse(partition)
    return [shard_indices(1000, i, shard_count, seed, rule, LABELS) for i in range(shard_count)]


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("shard_count", [1, 3, 8])
def test_shards_are_disjoint_and_complete(partition: str, shard_count: int) -> None:
    shards = split(partition, shard_count)
    assert sorted(np.concatenate(shards).tolist()) == list(range(1000))


@pytest.mark.parametrize("partition", PARTITIONS)
def test_shards_follow_from_the_seed_alone(partition: str) -> None:
    assert [s.tolist() for s in split(partition, 4)] == [s.tolist() for s in split(partition, 4)]
    assert split(partition, 4)[0].tolist() != split(partition, 4, seed=2)[0].tolist()


def test_iid_shards_are_of_equal_size_and_all_classes() -> None:
    shards = split("iid", 3)
    assert sorted(s.size for s in shards) == [333, 333, 334]
    assert all(np.unique(LABELS[s]).size == 10 for s in shards)


def test_dirichlet_is_more_skewed_for_a_smaller_alpha() -> None:
    def largest_class_share(alpha: str) -> float:
        shares = [np.bincount(LABELS[s], minlength=10).max() / s.size for s in split(alpha, 5)]
        return float(np.mean(shares))

    assert largest_class_share("dirichlet:0.1") > 0.4
    assert largest_class_share("dirichlet:1000") < 0.15


def test_label_skew_gives_each_shard_few_classes() -> None:
    assert all(np.unique(LABELS[s]).size <= 4 for s in split("labels:2", 5))


def test_quantity_skew_gives_unequal_sizes_with_all_classes() -> None:
    sizes = [s.size for s in split("quantity:0.5", 5)]
    assert max(sizes) > 2 * min(sizes)
    largest = max(split("quantity:0.5", 5), key=len)
    assert np.unique(LABELS[largest]).size == 10


def test_permutation_never_changes() -> None:
    """Golden values: peers with different library versions must split alike."""
    assert derive_seed(7, "x") == 7564985498416003339
    digest = hashlib.sha256(permutation(10_000, 7, "x").astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "dfbabae996e29252"


@pytest.mark.parametrize(
    ("partition", "digest"),
    [
        ("iid", "80faf61f9d1e695a"),
        ("dirichlet:0.3", "61406bac6b20d255"),
        ("labels:2", "93b2daedaf8284ae"),
        ("quantity:0.5", "03ffb3c168375ee9"),
    ],
)
def test_shards_never_change(partition: str, digest: str) -> None:
    """Golden values, for every way of cutting."""
    shard = shard_indices(1000, 1, 5, 3, Partition.parse(partition), LABELS)
    assert hashlib.sha256(shard.astype("<i8").tobytes()).hexdigest()[:16] == digest


def test_shard_without_samples_is_explained() -> None:
    with pytest.raises(ConfigError, match="shard 7/9 has none of the 5 training samples"):
        shard_indices(5, 7, 9, 1, Partition.parse("iid"))


@pytest.mark.parametrize(
    "text", ["", "iid:1", "dirichlet", "dirichlet:-1", "dirichlet:nan", "labels:1.5", "zipf:2"]
)
def test_unknown_partition_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="partition"):
        Partition.parse(text)


def test_labels_are_asked_for_where_needed() -> None:
    with pytest.raises(ConfigError, match="label"):
        shard_indices(10, 0, 2, 1, Partition.parse("labels:2"))
