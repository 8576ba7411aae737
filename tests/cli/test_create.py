"""``p2pd create`` against a real rendezvous: what it prints, signs, leaves and keeps."""

import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.identity import Identity, key_from_text
from protocol.statements.invite import Invite
from protocol.uri import ServerUri
from tests.cli.conftest import CommandLine
from tests.cli.servers import left_with, server_process

DAY_MS = 24 * 3600 * 1000

pytestmark = pytest.mark.usefixtures("trainers_at_once")


@pytest.fixture
def rendezvous(p2pd: CommandLine, tmp_path: Path) -> Iterator[str]:
    """The URI of one that runs."""
    with server_process(p2pd, tmp_path / "rendezvous", "rendezvous") as uri:
        yield uri


def test_link_stands_alone_on_standard_output_and_leads_to_the_swarm(
    p2pd: CommandLine, rendezvous: str
) -> None:
    done = p2pd(
        "create", "--task", "digits", "--rendezvous", rendezvous, "--rounds", "7",
        "--min-peers", "3", "--local-steps", "5", "--grace", "1.5", "--invite-uses", "2",
        "--invite-days", "3", "--seed", "11", "--compression", "fp16", "--exchange", "gossip",
        "--topology", "ring", "--partition", "labels:2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    invite = Invite.parse(done.stdout)
    assert done.stdout == f"{invite}\n"
    assert "p2pd join LINK" in done.stderr
    assert str(invite) not in done.stderr
    assert "evaluated by every peer for itself; each round" in done.stderr

    swarm = left_with(rendezvous, invite.swarm_id)
    statement = swarm.statement
    assert (statement.name, statement.task.name, statement.task.builtin) == (
        "digits",
        "digits",
        True,
    )
    assert statement.task.seed == 11
    assert len(statement.task.manifest_digest) == len(statement.task.initial_state_digest) == 32
    settings = statement.settings
    assert (settings.rounds, settings.min_peers, settings.min_updates) == (7, 3, 3)
    assert settings.grace_s == 1.5
    assert (settings.local_unit, settings.local_amount) == ("steps", 5.0)
    assert (settings.compression, settings.exchange) == ("fp16", "gossip")
    assert (settings.topology, settings.partition) == ("ring", "labels:2")
    assert not statement.open
    (token,) = statement.tokens
    assert token.public_key == Identity(invite.token_secret).public_key
    assert token.uses == 2
    assert abs(token.expires_ms - time.time() * 1000 - 3 * DAY_MS) < DAY_MS / 24

    (state_dir,) = p2pd.state_root.iterdir()
    assert p2pd("id").stdout.strip() == swarm.founder
    assert (state_dir / "swarm.statement").read_bytes() == swarm.raw
    for file in state_dir.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_document_for_scripts_and_an_open_swarm_with_its_warning(
    p2pd: CommandLine, rendezvous: str, tmp_path: Path
) -> None:
    arguments = ("create", "--task", "digits", "--rendezvous", rendezvous, "--name", "try it")
    turns = ("--evaluate", "turn", "--evaluate-every", "3")
    done = p2pd(*arguments, *turns, "--open", "--json", "--state-dir", tmp_path / "founder")
    assert done.returncode == 0, done.stderr
    assert "invent a crowd of peers and take it over" in done.stderr
    document = json.loads(done.stdout)
    invite = Invite.parse(document.pop("link"))
    assert invite.token_secret == b""
    swarm = left_with(rendezvous, invite.swarm_id)
    assert swarm.statement.open
    assert swarm.statement.tokens == ()
    assert swarm.statement.settings.local_amount > 1  # what the task suggests
    assert key_from_text(document.pop("swarm_id")) == invite.swarm_id
    assert abs(document.pop("clock_offset_ms")) < 60_000  # the same machine, however busy
    assert document == {
        "schema": 1,
        "swarm": "try it",
        "founder": swarm.founder,
        "state_dir": str(tmp_path / "founder"),
        "evaluate": "turn",
        "evaluate_every": 3,
    }
    settings = swarm.statement.settings
    assert (settings.evaluate, settings.evaluate_every) == ("turn", 3)

    again = p2pd(*arguments, "--open", "--state-dir", tmp_path / "founder")
    assert again.returncode == 78
    assert "another swarm" in again.stderr


def test_task_file_is_named_by_its_digest_and_mentioned_to_those_who_join(
    p2pd: CommandLine, rendezvous: str
) -> None:
    source = (Path(__file__).parents[1] / "ml" / "tiny_task.py").read_bytes()
    (p2pd.home / "mine.py").write_bytes(source)
    done = p2pd("create", "--task", "mine.py", "--rendezvous", rendezvous)
    assert done.returncode == 0, done.stderr
    assert "p2pd join LINK --task mine.py" in done.stderr
    task = left_with(rendezvous, Invite.parse(done.stdout).swarm_id).statement.task
    assert (task.name, task.builtin, len(task.file_sha256)) == ("mine.py", False, 32)

    (p2pd.home / "other.py").write_text("open('ran', 'w')\n")
    joined = p2pd("join", done.stdout.strip(), "--task", "other.py", "--listen", "127.0.0.1:0")
    assert joined.returncode == 78
    assert "other.py differs from the founder's 'mine.py': its SHA-256 is" in joined.stderr
    assert not (p2pd.home / "ran").exists()
    assert "listening" not in joined.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--task", "nonsense"], 78, "there are digits, mnist"),
        (["--task", "./missing.py"], 78, "no task file"),
        (["--task", "digits", "--aggregation", "sum"], 78, "write mean"),
        (["--task", "digits", "--exchange", "shouting"], 78, "write mesh"),
        (
            ["--task", "digits", "--exchange", "allreduce", "--aggregation", "median"],
            78,
            "does not go with allreduce",
        ),
        (["--task", "digits", "--partition", "labels:0"], 78, "write iid"),
        (["--task", "digits", "--local-steps", "1", "--local-epochs", "1"], 2, "not allowed with"),
        (["--task", "digits", "--invite-days", "0"], 2, "from 1 to"),
        (["--task", "digits", "--grace", "nan"], 2, "is no number"),
        (["--task", "digits", "--rendezvous", "tcp://x:1"], 2, "p2p://KEY@HOST:PORT"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_founded(
    p2pd: CommandLine, rendezvous: str, arguments: list[str], code: int, complaint: str
) -> None:
    done = p2pd("create", "--rendezvous", rendezvous, *arguments)
    assert done.returncode == code
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not p2pd.state_root.exists()


def test_rendezvous_that_is_not_there_exits_5(p2pd: CommandLine) -> None:
    uri = ServerUri.parse(f"p2p://{'a' * 52}@127.0.0.1:1")
    done = p2pd("create", "--task", "digits", "--rendezvous", str(uri))
    assert done.returncode == 5
    assert "cannot reach the rendezvous" in done.stderr
    assert not p2pd.state_root.exists()
    assert os.listdir(p2pd.home) == []
