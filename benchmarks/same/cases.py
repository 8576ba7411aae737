"""The swarms whose digests are kept: every exchange, encoding, rule and kind of local work that has
a result of its own.

``overlap`` and ``--local-seconds`` are not among them: how far a peer gets there depends on time.
"""

from dataclasses import dataclass

EXACT = "exact"
"""The task of benchmarks/same/exact_task.py: its digests hold for every machine."""


@dataclass(frozen=True, slots=True)
class Case:
    """One swarm; ``settings`` are options of ``p2pd create``."""

    name: str
    settings: str = ""
    peers: int = 3
    rounds: int = 3
    task: str = EXACT

    @property
    def is_exact(self) -> bool:
        """Whether its digests hold for every machine, and not only for those that train alike."""
        return self.task == EXACT


CASES = (
    Case("mesh"),
    Case("mesh, fp16", "--compression fp16"),
    Case("mesh, int8", "--compression int8"),
    Case("mesh, topk", "--compression topk --outer-momentum 0.5"),
    Case("mesh, topk:128", "--compression topk:128"),
    Case("mesh, outer optimizer", "--outer-learning-rate 0.7 --outer-momentum 0.9"),
    Case("mesh, uneven shards", "--partition quantity:0.5"),
    Case("mesh, ring of four", "--topology ring", peers=4),
    Case("mesh, trimmed mean", "--aggregation trimmed_mean:0.3"),
    Case("mesh, median of four", "--aggregation median", peers=4),
    Case("mesh, krum of five, int8", "--aggregation krum:1 --compression int8", peers=5),
    Case("mesh, centered clipping", "--aggregation centered_clip"),
    Case("allreduce", "--exchange allreduce"),
    Case("allreduce, fp16", "--exchange allreduce --compression fp16"),
    Case("allreduce of four, int8", "--exchange allreduce --compression int8", peers=4),
    Case("gossip", "--exchange gossip"),
    Case("gossip, fp16, trimmed mean", "--exchange gossip --compression fp16"
         " --aggregation trimmed_mean:0.3"),
    Case("gossip, int8, median", "--exchange gossip --compression int8 --aggregation median"),
    Case("gossip, centered clipping", "--exchange gossip --aggregation centered_clip"),
    Case("demo", task="digits"),
    Case("digits, allreduce, int8", "--exchange allreduce --compression int8 --local-steps 20",
         task="digits"),
    Case("digits, gossip, trial", "--exchange gossip --aggregation trial --local-steps 20",
         task="digits"),
)  # fmt: skip
