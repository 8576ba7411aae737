"""What a rehearsal of a task finds out; apart from it, for documents that show it.

>>> Rehearsed.__struct_fields__[:4]
('device', 'device_problem', 'steps', 'samples_per_second')
"""

import msgspec

from protocol.metric import MetricValue


class Rehearsed(msgspec.Struct, frozen=True):
    """What two rounds came to. Times are those of the second, which finds everything loaded."""

    device: str
    device_problem: str
    steps: int
    """Taken in the second round; all that a round has, or what there was time for."""
    samples_per_second: float
    training_s: float
    averaging_s: float
    """To check the other's update, to average, and to write the next state."""
    update_bytes: int
    state_bytes: int
    """What a newcomer fetches, and a checkpoint takes."""
    trainer_bytes: int | None
    """The most memory that the trainer had; null where the system does not tell."""
    averager_bytes: int | None
    loss: float | None
    """Null where the task's own evaluation says none."""
    metrics: tuple[MetricValue, ...]
