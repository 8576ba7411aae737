"""What a peer is doing now, in one word for log, status and commands."""

import enum


class Phase(enum.StrEnum):
    """One of these at any moment; a round goes from TRAINING to APPLYING.

    >>> Phase("training").name
    'TRAINING'
    """

    STARTING = "starting"
    """The worker loads task, data and checkpoint."""
    WAITING = "waiting"
    """Fewer peers are here than the round needs."""
    FETCHING = "fetching"
    """Takes the swarm's state from other peers."""
    TRAINING = "training"
    EXCHANGING = "exchanging"
    """This peer's update is out; others' are still coming in."""
    AGREEING = "agreeing"
    """The set of updates is being committed."""
    APPLYING = "applying"
    """Aggregates, checkpoints."""
    RETRYING = "retrying"
    """The last round failed here (``health`` says of what); the next try comes after a pause."""
    PAUSED = "paused"
    COMPLETE = "complete"
    """All rounds are done; the state stays here for others until told to stop."""
    OBSERVING = "observing"
    """Takes part in the swarm's connections, and in nothing else."""
    STOPPING = "stopping"
