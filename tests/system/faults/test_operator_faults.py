"""What an operator sees when the disk is full or the rendezvous is away, and what no log shows."""

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.control.status import Status
from daemon.host.state_paths import CURVE_KEY, IDENTITY_KEY
from protocol.identity import key_to_text
from protocol.statements.invite import Invite
from tests.system.real_swarm import END_S, ROOT, START_S, RealSwarm

PASSWORD = "correct-horse-battery-staple"
DEGRADED = 1


def codes(status: Status) -> set[str]:
    """What is wrong."""
    return {item.code for item in status.health}


def test_full_disk_is_told_by_status_and_training_goes_on(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    mount = 'mount -t tmpfs -o size=6m none "$0" && exec "$@"'
    alone = [unshare or "unshare", "--mount", "--map-root-user", "sh", "-c", mount, str(tmp_path)]
    if unshare is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    done = subprocess.run(
        [*alone, sys.executable, "-m", "tests.system.faults.full_disk", str(tmp_path / "swarm")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["exit_code"] == DEGRADED
    assert report["rounds"] >= 4
    assert any("No space left on device" in text for text in report["texts"])


def test_peer_starts_without_its_rendezvous_and_says_once_that_it_is_away(
    light_swarm: RealSwarm,
) -> None:
    swarm = light_swarm
    swarm.start_rendezvous()
    swarm.create("--task", "digits")
    ada = swarm.join("ada", "--observe")
    ada.wait_status("observes", lambda status: status.phase == "observing", START_S)
    ada.control.stop()
    assert ada.program is not None
    assert ada.program.wait_end() == 0
    assert swarm.rendezvous is not None
    swarm.rendezvous.close()

    # One that knows its swarm goes on; one that was never in it waits.
    since = ada.log_bytes()
    ada.join()
    eve = swarm.join("eve", "--observe")
    for peer, phase in ((ada, "observing"), (eve, "starting")):
        peer.wait_status(
            "knows that the rendezvous is away",
            lambda status, phase=phase: (  # type: ignore[misc]  # bound at once
                status.phase == phase
                and "rendezvous-unreachable" in codes(status)
                and status.uptime_s > 8
            ),
            START_S,
        )
        assert swarm.run("status", "--state-dir", peer.state_dir).returncode == DEGRADED
    for log in (ada.logged(since), eve.logged()):
        assert log.count(f"rendezvous 127.0.0.1:{swarm.rendezvous_port}: ") == 1, log

    swarm.start_rendezvous(port=swarm.rendezvous_port)
    eve.wait_status("is in", lambda status: status.phase == "observing", 2 * END_S)


def test_keys_invites_and_passwords_are_in_no_log_and_no_document(
    light_swarm: RealSwarm, tmp_path: Path
) -> None:
    swarm = light_swarm
    swarm.start_rendezvous()
    swarm.create("--task", "digits")
    turn = tmp_path / "turn"
    turn.write_text(f"ada:{PASSWORD}@127.0.0.1:9\n")
    arguments = ("--observe", "--log-level", "debug")
    ada = swarm.join("ada", "--turn", turn, *arguments)
    bob = swarm.join("bob", "--turn", f"bob:{PASSWORD}@127.0.0.1:9", *arguments)
    for peer in (ada, bob):
        peer.wait_status("meets the other", lambda status: len(status.peers) == 1)
    shown = [
        swarm.run(*command, "--state-dir", ada.state_dir)
        for command in (("status", "--json"), ("peers", "--json"), ("members", "--json"), ("id",))
    ]
    for peer in (ada, bob):
        peer.control.stop()
        assert peer.program is not None
        assert peer.program.wait_end() == 0
    texts = [
        *(path.read_text(errors="replace") for path in sorted(swarm.directory.glob("*.log"))),
        *(done.stdout + done.stderr for done in shown),
    ]
    assert all(done.returncode in (0, DEGRADED) for done in shown)
    link = swarm.link.read_text().strip()
    secrets = [Invite.parse(link).token_secret]
    for directory in (ada.state_dir, swarm.directory / "founder", swarm.directory / "rendezvous"):
        for name in (IDENTITY_KEY, CURVE_KEY):
            if (directory / name).exists():
                secrets.append((directory / name).read_bytes())
    assert len(secrets) >= 4
    hidden = {PASSWORD, link, link[-40:]}
    for secret in secrets:
        hidden |= {secret.hex(), repr(secret), key_to_text(secret), repr(secret)[2:-1]}
        hidden |= {base64.b64encode(secret).decode(), base64.urlsafe_b64encode(secret).decode()}
    assert [one for one in hidden for text in texts if one in text] == []
