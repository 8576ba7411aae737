"""The command line."""

from daemon.cli.entry import main

__all__ = ["main"]
