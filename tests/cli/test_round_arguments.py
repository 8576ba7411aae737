"""How ``create`` takes what a swarm learns by, and what it refuses before anything is signed."""

import argparse
from pathlib import Path

import pytest

from daemon.cli.entry import make_parser
from daemon.cli.round_arguments import chosen_settings
from tests.cli.conftest import CommandLine
from tests.cli.test_create import rendezvous as rendezvous  # noqa: PLC0414  # a fixture

CREATE = ("create", "--task", "digits", "--rendezvous")
