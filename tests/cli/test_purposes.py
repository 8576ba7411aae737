"""``p2pd create --for``: settings that go together, and what is said of them."""

import re
from pathlib import Path

import msgspec
import pytest

from daemon.cli.output import COLUMNS
from daemon.cli.purposes import PURPOSES, explain
from ml.rules.round_rules import parse_rules
from protocol.statements.invite import Invite
from protocol.statements.swarm import RoundSettings
from tests.cli.conftest import CommandLine
from tests.cli.servers import left_with, server_process

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("trainers_at_once")


@pytest.mark.parametrize("name", PURPOSES)
def test_settings_of_a_purpose_go_together(name: str) -> None:
    settings = msgspec.structs.replace(RoundSettings(), **PURPOSES[name].settings)
    assert parse_rules(settings).rounds == settings.rounds


@pytest.mark.parametrize("name", PURPOSES)
def test_figures_stand_on_the_page_that_is_named(name: str) -> None:
    purpose = PURPOSES[name]
    page = (ROOT / purpose.page).read_text("utf-8")
    figures = re.findall(r"\d+\.\d+", purpose.why)
    assert figures
    assert not [figure for figure in figures if figure not in page]


@pytest.mark.parametrize("name", PURPOSES)
def test_explanation_fits_a_terminal(name: str) -> None:
    assert max(map(len, explain(name, {"compression": "int8"}).splitlines())) <= COLUMNS


def test_explanation_names_what_was_picked_and_that_own_flags_were_not_measured() -> None:
    assert "topk:256" in explain("slow-lines", {})
    assert "do not hold" not in explain("slow-lines", {})
    changed = explain("slow-lines", {"compression": "int8"})
    assert "compression int8" in changed
    assert "do not hold" in changed


def test_founder_gets_the_settings_and_own_flags_count_more(
    p2pd: CommandLine, tmp_path: Path
) -> None:
    with server_process(p2pd, tmp_path / "rendezvous", "rendezvous") as uri:
        done = p2pd(
            "create", "--task", "digits", "--rendezvous", uri, "--for", "hostile",
            "--local-steps", "7",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "centered_clip" in done.stderr
        settings = left_with(uri, Invite.parse(done.stdout).swarm_id).statement.settings
    assert settings.aggregation == "centered_clip"
    assert (settings.local_unit, settings.local_amount) == ("steps", 7.0)
