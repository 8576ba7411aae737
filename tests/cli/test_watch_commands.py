"""``top``, ``wait``, ``history``, ``logs``, ``web``, ``metrics``: what they show and exit with."""

import asyncio
import io
import json
import logging
import sys
import urllib.request

import msgspec
import pytest
from rich.console import Console

from daemon.cli.watch.doing import doing, round_line, time_left_s
from daemon.cli.watch.join_view import JoinView
from daemon.cli.watch.live import LivePeer
from daemon.cli.watch.status import describe
from daemon.control.health import rendezvous_unreachable
from daemon.control.history import History
from daemon.control.status import Status
from daemon.web.metrics.peer import peer_metrics
from protocol.metric import MetricValue
from tests.cli.conftest import CommandLine, StartPeer
from tests.cli.fake_peer import BOB, URI, FakePeer

COLUMNS = 80
NO_HISTORY = History(peer_id="a" * 52, now=0.0)


@pytest.mark.parametrize("command", ["status", "peers", "top", "history", "logs"])
def test_what_is_shown_fits_a_terminal(
    p2pd: CommandLine, start_peer: StartPeer, command: str
) -> None:
    start_peer(kind="degraded")
    shown = p2pd(command)
    assert shown.stdout, shown.stderr
    assert max(map(len, shown.stdout.splitlines())) <= COLUMNS
    assert all(line.isprintable() for line in shown.stdout.splitlines())


def test_top_shows_one_picture_where_there_is_no_terminal(
    p2pd: CommandLine, start_peer: StartPeer
) -> None:
    start_peer()
    shown = p2pd("top")
    assert shown.returncode == 0, shown.stderr
    for fact in ("round 3 of 5", "trains round 4, step 17, 1234 samples/s", "bob", "2 behind",
                 "7 refused", "about 16 s left"):  # fmt: skip
        assert fact in shown.stdout


def test_wait_returns_when_the_peer_is_as_far(p2pd: CommandLine, start_peer: StartPeer) -> None:
    start_peer()
    assert p2pd("wait").returncode == 0
    assert p2pd("wait", "--until", "round", "3").returncode == 0
    assert p2pd("wait", "--until", "round 3").returncode == 0
    late = p2pd("wait", "--until", "complete", "--timeout", "0.3")
    assert late.returncode == 1
    assert "not within 0.3 s: it trains round 4" in late.stdout
    assert p2pd("wait", "--until", "round", "4", "--timeout", "0").returncode == 1


@pytest.mark.parametrize("words", [["soon"], ["round"], ["round", "x"], ["ready", "3"]])
def test_wait_for_something_else_is_a_usage_error(p2pd: CommandLine, words: list[str]) -> None:
    refused = p2pd("wait", "--until", *words)
    assert refused.returncode == 2
    assert "--until round N" in refused.stderr


def test_history_tells_how_good_which_round_was(p2pd: CommandLine, start_peer: StartPeer) -> None:
    start_peer()
    shown = p2pd("history").stdout.splitlines()
    assert shown[0].split()[:3] == ["ROUND", "STARTED", "TOOK"]
    assert [line.split()[0] for line in shown[1:]] == ["1", "2", "3"]
    assert shown[0].split()[-3:] == ["ACCURACY", "RMSE", "LOSS"]
    assert shown[2].split()[-5:] == ["97.0", "%", "9.00", "0.188", "best"]
    assert [line.endswith("best") for line in shown[1:]] == [False, True, False]
    assert len(p2pd("history", "-n", "1").stdout.splitlines()) == 2
    document = json.loads(p2pd("history", "--json").stdout)
    assert document["schema"] == 1
    assert document["current"]["round"] == 4
    assert document["rounds"][0]["losses"][BOB] == 0.25


def test_logs_come_as_text_or_as_json_lines(p2pd: CommandLine, start_peer: StartPeer) -> None:
    start_peer()
    assert p2pd("logs", "-n", "1").stdout.endswith("p2pd.round: round 3: 2 updates averaged\n")
    lines = [json.loads(line) for line in p2pd("logs", "--json").stdout.splitlines()]
    assert [line["level"] for line in lines] == ["info", "warning", "info"]
    assert p2pd("logs", "-n", "0").stdout == ""


def test_format_json_is_another_name_for_json(p2pd: CommandLine, start_peer: StartPeer) -> None:
    start_peer()
    for command in ("status", "peers", "history", "id"):
        plain = p2pd(command, "--state-dir", p2pd.state_root / "peer", "--format", "json").stdout
        assert json.loads(plain)["schema"] == 1
    assert not p2pd("status", "--format", "text").stdout.startswith("{")


def test_web_prints_an_address_that_shows_the_page(
    p2pd: CommandLine, start_peer: StartPeer
) -> None:
    start_peer()
    url = p2pd("web").stdout.strip()
    assert json.loads(p2pd("web", "--json").stdout)["url"] == url
    with urllib.request.urlopen(url, timeout=150) as page:
        assert b"<title>p2pd</title>" in page.read()


def test_metrics_are_those_of_the_peer(p2pd: CommandLine, start_peer: StartPeer) -> None:
    start_peer()
    assert "\np2pd_round 3\n" in p2pd("metrics").stdout


def test_what_a_peer_waits_for_is_named_with_how_far_it_is() -> None:
    status = msgspec.structs.replace(FakePeer("a" * 52).status(), phase="exchanging")
    waits = msgspec.structs.replace(
        NO_HISTORY, waits_for=[status.peers[1].peer_id, BOB], closes_in_s=17.2
    )
    said = doing(status, waits)
    assert said == "round 4: waits for \\x1b[2Jmallory\\u202e\\n\\x07 (2 behind), bob, 17 s at most"
    many = msgspec.structs.replace(NO_HISTORY, waits_for=["c" * 52] * 9)
    assert doing(status, many) == "round 4: waits for cccccccc, cccccccc, cccccccc and 6 more"


@pytest.mark.parametrize(
    ("phase", "said"),
    [
        ("starting", "loads the task and its data"),
        ("agreeing", "agrees with the others on round 4"),
        ("complete", "complete: all 5 rounds are done; serves the model to others"),
        ("retrying", "rests before it tries round 4 again"),
        ("observing", "observes 2 peers"),
    ],
)
def test_every_phase_is_a_sentence(phase: str, said: str) -> None:
    status = msgspec.structs.replace(FakePeer("a" * 52).status(), phase=phase)
    assert doing(status, NO_HISTORY) == said
    assert len(said) <= COLUMNS


def test_the_time_left_follows_the_last_rounds() -> None:
    peer = FakePeer("a" * 52)
    assert time_left_s(peer.status(), peer.history(0)) == 16.0
    endless = msgspec.structs.replace(peer.status(), rounds=0)
    assert time_left_s(endless, peer.history(0)) is None
    assert time_left_s(peer.status(), NO_HISTORY) is None


def test_what_is_wrong_and_how_long_it_takes_stand_whole_in_the_live_picture() -> None:
    peer = FakePeer("a" * 52, (rendezvous_unreachable(URI, "nobody answers", "training goes on"),))
    metrics = tuple(MetricValue(f"metric-{number}", 0.5) for number in range(9))
    picture = LivePeer()
    picture.update(msgspec.structs.replace(peer.status(), metrics=metrics), peer.history(0))
    console = Console(width=COLUMNS, file=io.StringIO())
    with console.capture() as seen:
        console.print(picture)
    lines = [line.rstrip() for line in seen.get().splitlines()]
    assert lines[0].startswith("digits   round 3 of 5   about 16 s left   metric-0 0.5")
    assert "…" not in lines[0]
    first = next(line for line in lines if line.startswith("! "))
    told = lines[lines.index(first) :]
    assert all(line.startswith("  ") for line in told[1:])
    assert any(line.startswith("  fix: ") for line in told)


def lines_of(view: JoinView, status: Status, history: History) -> list[str]:
    return list(view._news(status, history))


def test_plain_lines_of_join_tell_of_loading_waiting_rounds_and_the_end_once_each() -> None:
    peer, view = FakePeer("a" * 52), JoinView(live=False)
    starting = msgspec.structs.replace(peer.status(), phase="starting", round=0)
    assert lines_of(view, starting, NO_HISTORY) == ["loads the task and its data"]
    assert lines_of(view, starting, NO_HISTORY) == []
    alone = msgspec.structs.replace(starting, phase="waiting")
    waits = msgspec.structs.replace(NO_HISTORY, waiting="1 of 3 peers are ready")
    assert lines_of(view, alone, waits) == ["waits: 1 of 3 peers are ready"]
    rounds = lines_of(view, peer.status(), peer.history(0))
    assert rounds[0] == "round 1 of 5: accuracy 90.0 %, loss 0.375, 2 updates, 8.0 s"
    assert len(rounds) == 3
    assert lines_of(view, peer.status(), peer.history(3)) == []
    complete = msgspec.structs.replace(peer.status(), phase="complete")
    last = msgspec.structs.replace(peer.history(0).rounds[2], is_evaluating=True)
    assert lines_of(view, complete, msgspec.structs.replace(NO_HISTORY, rounds=[last])) == []
    assert lines_of(view, complete, peer.history(3)) == [doing(complete, NO_HISTORY)]
    assert max(map(len, rounds)) <= COLUMNS


async def test_rounds_that_ended_since_the_last_look_are_told_when_the_peer_ends(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Training(FakePeer):
        ended = 0

        def history(self, after: int) -> History:
            looked.set()
            history = super().history(after)
            rounds = [record for record in history.rounds if record.round <= self.ended]
            return msgspec.structs.replace(history, rounds=rounds)

    looked, peer = asyncio.Event(), Training("a" * 52)
    showing = asyncio.create_task(JoinView(live=False).run(peer))
    await looked.wait()
    assert capsys.readouterr().out == ""
    peer.ended = 3
    showing.cancel()
    await asyncio.wait([showing])
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in told] == [f"round {n} of 5" for n in (1, 2, 3)]


async def test_above_the_picture_of_join_appear_those_lines_that_it_does_not_show(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", terminal)
    handler = logging.StreamHandler(terminal)
    log = logging.getLogger("p2pd.test")
    logging.getLogger().addHandler(handler)
    monkeypatch.setattr(logging.getLogger(), "level", logging.INFO)
    try:
        showing = asyncio.create_task(JoinView(live=True).run(FakePeer("a" * 52)))
        async with asyncio.timeout(60):
            while not handler.filters:  # noqa: ASYNC110 — the picture tells nobody that it is there
                await asyncio.sleep(0.01)
        log.info("round 3: 2 updates averaged")
        log.warning("peer bob: no reply")
        showing.cancel()
        await asyncio.wait([showing], timeout=60)
        log.info("ended")
    finally:
        logging.getLogger().removeHandler(handler)
    shown = capsys.readouterr()
    assert "round 3: 2 updates averaged" not in shown.err
    assert "peer bob: no reply" in shown.err
    assert terminal.getvalue() == "ended\n"


async def test_a_fault_of_the_view_is_logged_and_ends_the_view_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(FakePeer):
        def status(self) -> Status:
            raise ValueError("of the view")

    await JoinView(live=False).run(Broken("a" * 52))
    assert "nothing more is shown" in caplog.text


def test_other_metrics_than_accuracy_are_shown_by_their_name_and_format() -> None:
    peer = FakePeer("a" * 52)
    metrics = (MetricValue("rmse", 12345.678, "lower", ",.1f"), MetricValue("r2", 0.125))
    record = msgspec.structs.replace(peer.history(0).rounds[0], metrics=list(metrics))
    assert round_line(record, 5) == "round 1 of 5: rmse 12,345.7, loss 0.375, 2 updates, 8.0 s"
    status = msgspec.structs.replace(peer.status(), accuracy=None, metrics=metrics)
    assert "rmse 12,345.7, r2 0.125, loss 0.125, speed 1234 samples/s" in describe(status)
    said = msgspec.structs.replace(status, evaluated_by="gkx3q7abcdef", evaluate="turn")
    assert "loss 0.125, as gkx3q7ab says" in describe(said)
    assert "one peer in turn, for the others; each round" in describe(said)
    record.evaluated_by = "gkx3q7abcdef"
    assert "loss 0.375, as gkx3q7ab says, 2 updates" in round_line(record, 5)
    unknown = msgspec.structs.replace(status, metrics=(), loss=None, evaluate="none")
    assert "not evaluated in this swarm, speed 1234" in describe(unknown)
    led_by_loss = msgspec.structs.replace(status, metrics=(MetricValue("loss", 0.5, "lower"),))
    assert "loss 0.5, speed 1234 samples/s" in describe(led_by_loss)
    console = Console(width=COLUMNS, file=io.StringIO())
    picture = LivePeer()
    picture.update(status, peer.history(3))
    with console.capture() as seen:
        console.print(picture)
    assert "rmse 12,345.7   r2 0.125   loss 0.125" in seen.get()
    assert "accuracy" not in seen.get()
    assert 'p2pd_model_metric{metric="rmse"} 12345.678' in peer_metrics(status)


def test_a_round_without_numbers_has_a_line_too() -> None:
    record = msgspec.structs.replace(
        FakePeer("a" * 52).history(0).rounds[0], loss=None, metrics=[], seconds=None, updates=0
    )
    assert round_line(record, 0) == "round 1: complete"
