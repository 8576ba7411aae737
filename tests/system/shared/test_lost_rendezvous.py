"""The rendezvous is killed and comes back: rounds go on, and the peers are in it again."""

import signal
import time

from tests.system.real_swarm import updates_averaged
from tests.system.slow_swarm import SlowSwarm, wait_round_of_all


def test_rounds_go_on_without_a_rendezvous_and_peers_are_back_in_it_when_it_returns(
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
    for later in (number + 1, number + 2):
        wait_round_of_all(slow_swarm.peers, later)
        assert updates_averaged(slow_swarm.peers, later) == {3}

    gone_at = time.monotonic()
    swarm.start_rendezvous(port=port)
    assert swarm.uri == uri
    for peer in slow_swarm.peers:
        peer.wait_status(
            "is back in the rendezvous",
            lambda status: (
                status.rendezvous.state == "connected"
                and status.rendezvous.last_announce_s is not None
                and status.rendezvous.last_announce_s < time.monotonic() - gone_at
            ),
        )
    newcomer = slow_swarm.join("dan", 3)
    newcomer.wait_status("finds all others", lambda status: len(status.peers) >= 3)
