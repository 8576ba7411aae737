"""The rendezvous is killed and comes back: rounds go on, and the peers are in it again."""

import signal
import time

from tests.system.slow_swarm import SILENCE_S, SlowSwarm, wait_round_of_all

BACK_S = 30.0


def test_rounds_go_on_without_a_rendezvous_and_peers_are_back_in_it_within_30_s(
    slow_swarm: SlowSwarm,
) -> None:
    swarm = slow_swarm.swarm
    assert swarm.rendezvous is not None
    port = swarm.rendezvous_port
    uri = swarm.uri
    swarm.rendezvous.signal(signal.SIGKILL)
    swarm.rendezvous.wait_end()
    for peer in slow_swarm.peers:
        status = peer.wait_status(
            "misses the rendezvous", lambda status: status.rendezvous.state == "unreachable"
        )
        assert [item.code for item in status.health] == ["rendezvous-unreachable"]
        assert swarm.run("status", "--state-dir", peer.state_dir).returncode == 1

    number = slow_swarm.last_round() + 1
    ended_at = wait_round_of_all(slow_swarm.peers, number)
    for later in (number + 1, number + 2):
        before, ended_at = ended_at, wait_round_of_all(slow_swarm.peers, later)
        assert ended_at - before < slow_swarm.normal_round_s + SILENCE_S
        assert [peer.averaged()[later].updates for peer in slow_swarm.peers] == [3, 3, 3]

    swarm.start_rendezvous(port=port)
    returned_at = time.monotonic()
    assert swarm.uri == uri
    for peer in slow_swarm.peers:
        peer.wait_status(
            "is back in the rendezvous",
            lambda status: (
                status.rendezvous.state == "connected"
                and status.rendezvous.last_announce_s is not None
                and status.rendezvous.last_announce_s < time.monotonic() - returned_at
            ),
            returned_at + BACK_S - time.monotonic(),
        )
    newcomer = slow_swarm.join("dan", 3)
    newcomer.wait_status("finds all others", lambda status: len(status.peers) >= 3)
