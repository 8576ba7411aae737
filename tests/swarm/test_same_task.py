"""Who may join with what: a task's file, a built-in task, a script of one's own."""

from pathlib import Path

import msgspec
import pytest

from daemon.swarm.join_options import JoinOptions
from daemon.swarm.same_task import check_options
from protocol.errors import ConfigError
from protocol.statements.invite import Invite
from tests.net.swarm_peers import make_swarm

SWARM = make_swarm()
TASK = msgspec.structs.replace(SWARM.statement.task, builtin=False, file_sha256=b"")
BY_SCRIPTS = msgspec.structs.replace(SWARM.statement, task=TASK)
INVITE = Invite(swarm_id=SWARM.swarm_id, token_secret=b"", rendezvous=())


def test_swarm_of_scripts_is_joined_with_a_script_only(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="scripts of their own"):
        check_options(BY_SCRIPTS, JoinOptions(state_dir=tmp_path, invite=INVITE))
    check_options(
        BY_SCRIPTS, JoinOptions(state_dir=tmp_path, invite=INVITE, command=("python", "train.py"))
    )


def test_swarm_of_a_task_may_be_joined_with_a_script(tmp_path: Path) -> None:
    options = JoinOptions(state_dir=tmp_path, invite=INVITE, command=("python", "train.py"))
    check_options(SWARM.statement, options)
