"""A laboratory starts fast, stays to itself, and leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.natlab.lab import Host, NatKind, NatLab, NatLabError
from tests.natlab.namespaces import lab_namespaces
from tests.natlab.probes import observe_udp, observers, udp_socket
from tests.natlab.requirements import natlab_marks

pytestmark = natlab_marks

ROOT = Path(__file__).parents[3]
READY = b"ready\n"
ONE_HOME = """
import sys, time
from tests.natlab.lab import NatKind, NatLab
from tests.natlab.probes import observe_udp, observers, udp_socket
with NatLab() as lab:
    server = lab.add_public_host("server", addresses=2)
    home = lab.add_site("home", NatKind.PORT_RESTRICTED, delay_ms=1)
"""
OBSERVED = """
    with observers(lab, server) as echo, udp_socket(lab, home.host) as client:
        for _ in range(20):
            print(*observe_udp(client, echo.udp[0]))
"""
WITH_A_PROGRAM = """
    program = lab.popen(home.host, ["sleep", "1000"])
    print(program.pid, flush=True)
    sys.stdin.read()
"""


def namespaces_beside(host: Host) -> set[str]:
    """The names of all namespaces of the laboratory that the host is or was in."""
    laboratory = host.namespace.name.rpartition(".")[0]
    return {name for name in lab_namespaces() if name.startswith(laboratory)}


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_everything_is_gone_after_the_block() -> None:
    with NatLab() as lab:
        home = lab.add_site("home", NatKind.DOUBLE, delay_ms=1)
        program = lab.popen(home.host, ["sleep", "1000"], stdout=subprocess.PIPE)
        assert len(namespaces_beside(home.host)) == 4
    assert namespaces_beside(home.host) == set()
    assert program.returncode == -signal.SIGKILL


def test_everything_is_gone_after_an_exception() -> None:
    hosts = []

    def fail() -> None:
        with NatLab() as lab:
            hosts.append(lab.add_site("home", NatKind.PORT_RESTRICTED, delay_ms=1).host)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert namespaces_beside(*hosts) == set()


def test_program_that_forked_away_ends_with_the_laboratory() -> None:
    with NatLab() as lab:
        home = lab.add_site("home", NatKind.OPEN)
        script = "setsid sleep 1000 >/dev/null 2>&1 & echo $!"
        done = lab.run(home.host, ["sh", "-c", script], capture_output=True, check=True)
        pid = int(done.stdout)
        assert is_running(pid)
    assert not is_running(pid)


def test_next_laboratory_removes_what_a_killed_one_left() -> None:
    argv = [sys.executable, "-c", ONE_HOME + WITH_A_PROGRAM]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as victim:
        assert victim.stdout is not None
        program = int(victim.stdout.readline())
        left = {name for name in lab_namespaces() if f".{victim.pid}." in name}
        assert len(left) == 4
        with NatLab():
            assert left <= set(lab_namespaces()), "its owner lives"
        assert is_running(program)
        victim.kill()
    with NatLab():
        assert not left & set(lab_namespaces())
    assert not is_running(program)


def test_laboratories_in_parallel_processes_do_not_meet() -> None:
    argv = [sys.executable, "-c", ONE_HOME + OBSERVED]
    running = [subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(4)]
    outputs = []
    for process in running:
        with process:
            outputs.append(process.communicate(timeout=150)[0])
            assert process.returncode == 0
    # The same plan and the same seed: the same addresses and ports, each within its own world.
    assert len(set(outputs)) == 1
    assert len(outputs[0].splitlines()) == 20


def test_two_laboratories_in_one_process_do_not_meet() -> None:
    with NatLab() as one, NatLab() as other:
        for lab in (one, other):
            server = lab.add_public_host("server", addresses=2)
            home = lab.add_site("home", NatKind.PORT_RESTRICTED)
            with observers(lab, server) as echo, udp_socket(lab, home.host) as client:
                assert observe_udp(client, echo.udp[0])[0] == "203.0.113.1"


def test_nothing_leads_out_of_the_laboratory(lab: NatLab) -> None:
    server = lab.add_public_host("server")
    home = lab.add_site("home", NatKind.MASQUERADE)
    here = Path("/proc/self/ns/net").stat().st_ino
    for host in (server, home.host):
        done = lab.run(
            host, ["stat", "-Lc", "%i", "/proc/self/ns/net"], capture_output=True, check=True
        )
        assert int(done.stdout) != here
    devices = {name for _, name in socket.if_nameindex()}
    assert not devices & {"wan0", "lan0", "port1x0"}
    # The internet's own routes: what was given out, and an end for all else.
    done = lab.run(
        Host("internet", lab._internet.namespace),
        ["ip", "route", "show", "default"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "blackhole default"


def test_programs_run_on_routers_too(lab: NatLab) -> None:
    home = lab.add_site("home", NatKind.PORT_RESTRICTED)
    done = lab.run(
        home.router, ["nft", "list", "tables"], capture_output=True, text=True, check=True
    )
    assert "table ip router" in done.stdout


def test_program_ends_with_its_own_block(lab: NatLab) -> None:
    home = lab.add_site("home", NatKind.OPEN)
    with lab.popen(home.host, ["sleep", "1000"]) as program:
        assert program.poll() is None
    assert program.returncode == -signal.SIGTERM


def test_program_that_ignores_sigterm_is_killed(lab: NatLab) -> None:
    home = lab.add_site("home", NatKind.OPEN)
    script = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    with lab.popen(home.host, ["sh", "-c", script], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == READY
        program.stop(patience_s=0.1)
    assert program.returncode == -signal.SIGKILL


def test_run_has_a_timeout(lab: NatLab) -> None:
    home = lab.add_site("home", NatKind.OPEN)
    with pytest.raises(subprocess.TimeoutExpired):
        lab.run(home.host, ["sleep", "1000"], timeout=0.1)


def test_call_runs_inside_and_hands_on_results_and_errors(lab: NatLab) -> None:
    home = lab.add_site("home", NatKind.OPEN)
    names = lab.call(home.host, lambda: [name for _, name in socket.if_nameindex()])
    assert names == ["lo", "eth0"]
    with pytest.raises(ZeroDivisionError):
        lab.call(home.host, lambda: 1 // 0)
    assert os.stat("/proc/thread-self/ns/net") == os.stat("/proc/self/ns/net")


def test_names_are_checked(lab: NatLab) -> None:
    lab.add_public_host("server")
    with pytest.raises(ValueError, match="there is a server already"):
        lab.add_site("server", NatKind.OPEN)
    with pytest.raises(ValueError, match="lower-case"):
        lab.add_public_host("../escape")


def test_failing_command_says_what_failed(lab: NatLab) -> None:
    server = lab.add_public_host("server")
    with pytest.raises(NatLabError, match="Cannot find device"):
        server.namespace.ip("link set nowhere up")
    with pytest.raises(NatLabError, match="syntax error"):
        server.namespace.nft("nonsense")
    with pytest.raises(ValueError, match="a rate such as"):
        lab.set_rate(server, "fast")
    with pytest.raises(ValueError, match="between 0 and 1"):
        lab.set_loss(server, 5)
