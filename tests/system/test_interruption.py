"""A measurement that is told to end ends the swarm that it has started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.process_table import processes_of
from tests.system.real_swarm import ROOT

WAIT_S = 110.0
MEASUREMENT = """
import signal, sys, time
from pathlib import Path
from tests.interruption import unwind_when_interrupted
from tests.system.real_swarm import RealSwarm

signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a shell
unwind_when_interrupted()
with RealSwarm(Path(sys.argv[1])) as swarm:
    swarm.start_rendezvous()
    print("measures", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]])
def test_nothing_of_a_swarm_outlives_what_started_it(
    tmp_path: Path, numbers: list[signal.Signals]
) -> None:
    swarm = tmp_path / "swarm"
    measurement = subprocess.Popen(
        [sys.executable, "-c", MEASUREMENT, str(swarm)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert measurement.stdout is not None
    assert measurement.stdout.readline() == "measures\n"
    assert len(processes_of(swarm)) > 1
    for number in numbers:
        measurement.send_signal(number)
    measurement.communicate(timeout=WAIT_S)
    assert measurement.returncode != 0
    deadline = time.monotonic() + WAIT_S
    while processes_of(swarm) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(swarm) == {}
