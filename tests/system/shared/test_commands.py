"""What the commands say and exit with while peers train, rest and are gone."""

import json
from pathlib import Path

from safetensors.torch import load_file

from daemon.control.status import Status
from daemon.rounds.phase import Phase
from daemon.rounds.record.round_record import RoundRecord
from tests.system.real_swarm import ROUND_S, assert_equal_exports, updates_averaged, wait_until
from tests.system.slow_swarm import SlowSwarm, wait_round_of_all

STATUS = {
    "schema",
    "version",
    "peer_id",
    "swarm",
    "task",
    "phase",
    "round",
    "loss",
    "accuracy",
    "samples_per_second",
    "uptime_s",
    "rendezvous",
    "addresses",
    "peers",
    "health",
}
RENDEZVOUS = {"uri", "state", "last_announce_s"}
PEER = {
    "peer_id",
    "path",
    "address",
    "rtt_ms",
    "round",
    "bytes_sent",
    "bytes_received",
    "last_update_s",
}
NOT_RUNNING = 3
UNKNOWN = 5


def is_healthy(status: Status) -> bool:
    """Whether it has learned, nothing is wrong, and two others are known in all respects."""
    live = [other for other in status.peers if other.path == "direct"]
    known = all(None not in (other.rtt_ms, other.last_update_s) for other in live)
    return not status.health and (status.accuracy or 0.0) > 0.5 and len(live) == 2 and known


def test_healthy_peer_says_all_about_itself_and_exits_0(slow_swarm: SlowSwarm) -> None:
    peer = slow_swarm.peers[0]
    peer.wait_status("is healthy and knows all of the others", is_healthy)
    place = ("--state-dir", peer.state_dir)
    status = slow_swarm.swarm.run("status", "--json", *place)
    document = json.loads(status.stdout)
    assert (status.returncode, document["health"]) == (0, [])
    assert document.keys() >= STATUS
    assert document["rendezvous"].keys() >= RENDEZVOUS
    assert document["rendezvous"]["uri"] == slow_swarm.swarm.uri
    assert document["round"] > 0
    assert document["accuracy"] > 0.5
    live = [other for other in document["peers"] if other["path"] == "direct"]
    assert len(live) == 2
    for other in live:
        assert other.keys() >= PEER
        assert None not in (other["rtt_ms"], other["last_update_s"])
    assert slow_swarm.swarm.run("status", *place).returncode == 0
    assert slow_swarm.swarm.run("peers", *place).returncode == 0
    assert slow_swarm.swarm.run("peers", "bob", *place).returncode == 0
    assert slow_swarm.swarm.run("peers", "nobody", *place).returncode == UNKNOWN


def test_one_peer_in_turn_measures_a_round_and_the_others_go_by_its_word(
    slow_swarm: SlowSwarm,
) -> None:
    peers = {peer.status().peer_id: peer for peer in slow_swarm.peers}

    def known_to_all() -> list[dict[str, RoundRecord]]:
        found = {
            peer_id: {one.round: one for one in peer.control.history().rounds if one.metrics}
            for peer_id, peer in peers.items()
        }
        common = set.intersection(*(set(rounds) for rounds in found.values()))
        return [{who: rounds[number] for who, rounds in found.items()} for number in common]

    for records in wait_until("a round is measured and told", known_to_all, ROUND_S):
        (measured,) = (who for who, record in records.items() if not record.evaluated_by)
        words = {record.evaluated_by for who, record in records.items() if who != measured}
        assert words == {measured}
        assert len({record.loss for record in records.values()}) == 1


def test_paused_peer_keeps_up_without_training_until_it_is_resumed(
    slow_swarm: SlowSwarm, tmp_path: Path
) -> None:
    swarm = slow_swarm.swarm
    *others, rests = slow_swarm.peers
    place = ("--state-dir", rests.state_dir)
    assert swarm.run("pause", *place).returncode == 0
    paused_at = rests.wait_status("rests", lambda status: status.phase == Phase.PAUSED).round
    assert swarm.run("status", *place).returncode == 0
    wait_round_of_all(others, paused_at + 3)
    rests.wait_round(paused_at + 2)
    assert updates_averaged(others, paused_at + 3) == {2}
    assert not rests.averaged().keys() & {paused_at + 2, paused_at + 3}

    assert swarm.run("resume", *place).returncode == 0
    slow_swarm.wait_all_average()
    assert_equal_exports(slow_swarm.peers, tmp_path)


def test_commands_to_a_peer_that_does_not_run_exit_3(slow_swarm: SlowSwarm) -> None:
    swarm = slow_swarm.swarm
    nowhere = ("--state-dir", swarm.directory / "nowhere")
    for command in ("status", "peers", "pause", "resume", "stop"):
        done = swarm.run(command, *nowhere)
        assert (done.returncode, done.stdout) == (NOT_RUNNING, "")
        assert "nowhere" in done.stderr
    assert swarm.run("export", "model.safetensors", *nowhere).returncode == NOT_RUNNING
    assert not (swarm.directory / "model.safetensors").exists()


def test_export_is_what_plain_safetensors_load(slow_swarm: SlowSwarm, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    place = ("--state-dir", slow_swarm.peers[0].state_dir)
    exported = slow_swarm.swarm.run("export", file, *place)
    assert exported.returncode == 0
    assert load_file(file).keys() >= {"0.weight", "1.running_mean", "3.bias"}
