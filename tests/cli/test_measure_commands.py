"""``ping`` and ``speed`` as a user types them, against a peer whose network is made up."""

import json

import pytest

from daemon.cli.output import short_uri
from tests.cli.conftest import CommandLine, StartPeer
from tests.cli.fake_peer import BOB, RELAY_URI, RELAYED_PINGS

QUICK = ("--interval", "0.1")


def test_ping_shows_path_time_and_why_it_is_relayed(
    p2pd: CommandLine, start_peer: StartPeer
) -> None:
    start_peer()
    done = p2pd("ping", "bob", "-c", "3", *QUICK)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "bob (bbbbbbbb): 12.5 ms, relay 127.0.0.1:5600",
        "  relayed, because direct: nobody answers there",
        "bob (bbbbbbbb): 12.5 ms, relay 127.0.0.1:5600",
        "bob (bbbbbbbb): 12.5 ms, direct, 127.0.0.1:6001",
        "3 asked, 3 replied; 12.5 ms at least, 12.5 ms on average, 12.5 ms at most",
    ]


def test_ping_until_direct_ends_as_soon_as_no_relay_is_between(
    p2pd: CommandLine, start_peer: StartPeer
) -> None:
    start_peer()
    done = p2pd("ping", "bob", "--until-direct", "--json", *QUICK)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == 1
    assert document["peer_id"] == BOB
    assert document["path"] == "direct"
    assert document["asked"] == document["replied"] == RELAYED_PINGS + 1
    assert [reply["path"] for reply in document["replies"]] == ["relay"] * RELAYED_PINGS + [
        "direct"
    ]
    assert document["rtt_ms"] == {"min": 12.5, "mean": 12.5, "max": 12.5}


def test_ping_until_direct_that_stays_relayed_exits_1(
    p2pd: CommandLine, start_peer: StartPeer
) -> None:
    start_peer()
    done = p2pd("ping", "bob", "--until-direct", "-c", "1")
    assert done.returncode == 1
    assert "relayed, because direct: nobody answers there" in done.stdout


def test_ping_without_a_reply_exits_5_with_the_reason(
    p2pd: CommandLine, start_peer: StartPeer
) -> None:
    start_peer()
    done = p2pd("ping", "bc", "-c", "3", *QUICK)
    assert done.returncode == 5
    assert done.stdout.count("there is no path to it: no answer") == 1  # Long, and the same again.
    assert done.stdout.count("no reply, as before") == 2
    assert all(line.isprintable() for line in done.stdout.splitlines())
    document = json.loads(p2pd("ping", "bc", "-c", "1", "--json").stdout)
    assert (document["asked"], document["replied"]) == (1, 0)
    assert document["losses"] == ["there is no path to it: no answer"]


@pytest.mark.parametrize("command", ["ping", "speed"])
def test_peer_that_is_not_known_or_not_told_apart(
    p2pd: CommandLine, start_peer: StartPeer, command: str
) -> None:
    start_peer()
    unknown = p2pd(command, "carol")
    assert unknown.returncode == 5
    assert "no peer 'carol' here" in unknown.stderr
    itself = p2pd(command, "alice")
    assert itself.returncode == 5
    assert "this peer itself" in itself.stderr
    assert p2pd(command, "b").returncode == 2


@pytest.mark.parametrize("command", ["ping", "speed"])
def test_without_a_daemon_measuring_exits_3(p2pd: CommandLine, command: str) -> None:
    assert p2pd(command, "bob").returncode == 3


def test_speed_prints_the_document_that_scripts_read(
    p2pd: CommandLine, start_peer: StartPeer
) -> None:
    start_peer()
    done = p2pd("speed", "bob", "--size", "1.5M", "--path", "punched", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert {"schema", "path", "mb_per_s", "bytes", "seconds"} <= document.keys()
    assert (document["schema"], document["path"], document["bytes"]) == (1, "punched", 1_500_000)
    shown = p2pd("speed", "bob").stdout
    assert (
        shown == "to bob (bbbbbbbb) over direct, 127.0.0.1:6001: 50.00 MB/s (100.0 MB in 2.00 s)\n"
    )


def test_speed_over_a_path_that_is_not_there_exits_5_with_the_reason(
    p2pd: CommandLine, start_peer: StartPeer
) -> None:
    start_peer()
    done = p2pd("speed", "bob", "--path", "ice")
    assert done.returncode == 5
    assert "there is no ice path to it: this network lets no UDP through" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["ping", "bob", "--size", "60001"], "whole number from 0 to 60000"),
        (["ping", "bob", "-c", "0"], "whole number from 1"),
        (["speed", "bob", "--size", "5G"], "no size from 1 to"),
        (["speed", "bob", "--size", "many"], "no size from 1 to"),
        (["speed", "bob", "--path", "failed"], "invalid choice"),
    ],
)
def test_bad_measuring_arguments_exit_2(
    p2pd: CommandLine, arguments: list[str], complaint: str
) -> None:
    done = p2pd(*arguments)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_status_lists_the_relays_with_state_and_round_trip(
    p2pd: CommandLine, start_peer: StartPeer
) -> None:
    start_peer()
    shown = p2pd("status").stdout
    in_one_line = " ".join(shown.split())
    assert f"ready, round trip 3.2 ms, 1 path over it, {short_uri(RELAY_URI)}" in in_one_line
    assert json.loads(p2pd("status", "--json").stdout)["relays"] == [
        {"uri": RELAY_URI, "state": "ready", "reason": "", "round_trip_ms": 3.25, "links": 1}
    ]
