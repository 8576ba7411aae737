"""What goes wrong for those who train in a swarm."""


class SwarmError(Exception):
    """The swarm cannot be joined, or training in it cannot go on. The text says what to do."""
