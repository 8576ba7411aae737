"""Counts as people read them."""


def counted(count: int, noun: str) -> str:
    """For example ``1 peer`` and ``2 peers``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
