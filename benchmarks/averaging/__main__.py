"""How long a round of averaging takes, beside gloo and hivemind in the same run.

    python -m benchmarks.averaging [--peers 4] [--millions 11.7] [--rounds 5] [--turns 3]
                                   [--system p2pd-mesh …] [--json FILE] [--page]

Every peer's update is another one, and the training is one step. All systems take turns on this
machine, each turn in the opposite order of the one before; a turn's figure is the median of its
rounds, and ratios are of figures of one turn. gloo is plain TCP without any check of anything: the
limit. hivemind is installed into an environment of its own (about 2 GB in the temporary directory,
kept with --environment DIR). Wants a machine that has nothing else to do. --page writes
docs/averaging.md, with what was measured of other cases before.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.averaging import p2pd_rounds
from benchmarks.averaging.measured import Case, Measured
from benchmarks.averaging.page import FIGURES, keep, load, rows, write_page
from tests.interruption import unwind_when_interrupted

HERE = Path(__file__).parent
HIVEMIND = "hivemind==1.1.12"
RUN_S = 1800.0
SETTINGS = {
    "p2pd-mesh": ("--exchange", "mesh"),
    "p2pd-allreduce": ("--exchange", "allreduce"),
    "p2pd-gossip": ("--exchange", "gossip", "--topology", "regular:2"),
    "p2pd-allreduce-int8": ("--exchange", "allreduce", "--compression", "int8"),
}
SYSTEMS = ("gloo", *SETTINGS, "hivemind")


def main() -> None:
    """Measure, print a table, and write what was measured."""
    unwind_when_interrupted()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.averaging")
    parser.add_argument("--peers", type=int, nargs="+", default=[4])
    parser.add_argument("--millions", type=float, nargs="+", default=[11.7], help="of parameters")
    parser.add_argument("--rounds", type=int, default=5, help="measured in each turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--system", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument(
        "--environment", type=Path, help="where hivemind is, or is to be, installed"
    )
    parser.add_argument("--json", type=Path, help="a file for all figures; other cases in it stay")
    parser.add_argument("--page", action="store_true", help="write docs/averaging.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="p2pd-hivemind-") as directory:
        environment = arguments.environment or Path(directory)
        if "hivemind" in arguments.system:
            install_hivemind(environment)
        cases = [
            Case(peers, round(millions * 1e6))
            for millions in arguments.millions
            for peers in arguments.peers
        ]
        here = machine()
        for case in cases:
            taken = take_turns(case, arguments.system, arguments, environment)
            print_table(case, taken)
            if arguments.json:
                keep(case, taken, arguments.json)
            if arguments.page:
                keep(case, taken, FIGURES)
                write_page(load(FIGURES), here)


def take_turns(
    case: Case, systems: Sequence[str], arguments: argparse.Namespace, environment: Path
) -> dict[str, list[Measured]]:
    """Every system's figures, one for each turn."""
    taken: dict[str, list[Measured]] = {system: [] for system in systems}
    for turn in range(arguments.turns):
        for system in systems if turn % 2 == 0 else reversed(systems):
            taken[system].append(way(system, environment)(case, arguments.rounds))
    return taken


def way(system: str, environment: Path) -> Callable[[Case, int], Measured]:
    """How that system is measured."""
    if system in SETTINGS:
        return lambda case, rounds: p2pd_rounds.measure(case, rounds, *SETTINGS[system])
    python = environment / "bin" / "python" if system == "hivemind" else Path(sys.executable)
    return lambda case, rounds: run(python, HERE / f"{system}_rounds.py", case, rounds)


def run(python: Path, script: Path, case: Case, rounds: int) -> Measured:
    """What another program measured and printed."""
    command: list[str | Path] = [python, script, str(case.peers), str(case.parameters), str(rounds)]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, env=clean, capture_output=True, text=True, timeout=RUN_S, check=False
    )
    if done.returncode:
        sys.exit(f"{script.name} failed:\n{done.stderr[-4000:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def install_hivemind(environment: Path) -> None:
    """Make an environment with hivemind in it, unless there is one."""
    if not (environment / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True, timeout=120)
    python = environment / "bin" / "python"
    # setuptools: a part of hivemind asks for pkg_resources.
    wanted = [HIVEMIND, "psutil", "setuptools<81"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True, timeout=900)


def print_table(case: Case, taken: dict[str, list[Measured]]) -> None:
    """One line a system: seconds of a round, its spread, beside gloo and hivemind, CPU, memory."""
    print(f"{case} parameters")
    print(
        f"{'':22}{'median s':>10}{'least':>9}{'most':>9}{'x gloo':>9}{'hivemind':>9}"
        f"{'CPU s':>8}{'MB':>8}"
    )
    for system, median, least, most, *rest in rows(taken):
        beside_gloo, beside_hivemind, cpu_s, peak = rest
        print(
            f"{system:22}{median:>10}{least:>9}{most:>9}{beside_gloo:>9}{beside_hivemind:>9}"
            f"{cpu_s:>8}{peak:>8}",
            flush=True,
        )


def machine() -> str:
    """What this machine is, for the page."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    name = model[1] if model else platform.machine()
    return f"{os.cpu_count()} cores of {name}"


if __name__ == "__main__":
    main()
