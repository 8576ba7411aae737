"""A ban that holds, with real peers. They only observe: nobody needs to train for that."""

import shutil
from pathlib import Path

from daemon.host.state_paths import STATEMENT_FILE
from daemon.net.path_kind import PathKind
from protocol.identity import short
from tests.system.real_swarm import RealPeer, RealSwarm, wait_until

BAD_CONFIGURATION = 78
HEARD_S = 90.0


def meets(peer: RealPeer, *others: str) -> None:
    """Return once ``peer`` is connected to exactly these."""

    def connected() -> bool:
        status = peer.find_status()
        found = (
            set()
            if status is None
            else {
                other.peer_id
                for other in status.peers
                if other.path in (PathKind.DIRECT, PathKind.PUNCHED)
            }
        )
        return found == set(others)

    wait_until(f"{peer.name} is connected to {others}", connected, HEARD_S)


def test_banned_member_stays_out_under_a_new_key_and_earlier_members_stay(
    light_swarm: RealSwarm, tmp_path: Path
) -> None:
    swarm = light_swarm
    swarm.start_rendezvous()
    swarm.create("--task", "digits")
    # The founder takes part where it founded the swarm, so that it meets who comes.
    founder, ada, mallory = (
        swarm.join(name, "--observe") for name in ("founder", "ada", "mallory")
    )
    founder_id, ada_id, banned = (
        peer.wait_status("starts", lambda status: True).peer_id for peer in (founder, ada, mallory)
    )
    meets(founder, ada_id, banned)
    meets(ada, founder_id, banned)

    done = swarm.run("ban", banned, "--state-dir", founder.state_dir)
    assert done.returncode == 0, done.stderr
    assert "revoked: invite 1, by which it came" in done.stdout
    # So that nobody has to wait until the next look at the rendezvous.
    founder.control.stop()
    assert founder.program is not None
    assert founder.program.wait_end() == 0
    founder.join()
    meets(founder, ada_id)
    meets(ada, founder_id)

    # It deletes its state and comes back by the same link: told, and out.
    mallory.running.close()
    old_statement = tmp_path / "statement"
    shutil.copy(mallory.state_dir / STATEMENT_FILE, old_statement)
    shutil.rmtree(mallory.state_dir)
    mallory.join(swarm.link, "--observe")
    assert mallory.program is not None
    assert mallory.program.wait_end(HEARD_S) == BAD_CONFIGURATION
    assert "was revoked by the swarm's founder" in mallory.logged()

    # It shows itself the statement of before, so that its own p2pd lets it try: others refuse it.
    shutil.rmtree(mallory.state_dir)
    mallory.state_dir.mkdir(mode=0o700)
    shutil.copy(old_statement, mallory.state_dir / STATEMENT_FILE)
    mallory.join(swarm.link, "--observe")
    for peer in (founder, ada):
        wait_until(
            f"{peer.name} refuses mallory",
            lambda peer=peer: "was revoked by the swarm's founder" in peer.logged(),  # type: ignore[misc]
            HEARD_S,
        )
    meets(founder, ada_id)
    meets(ada, founder_id)
    mallory.running.close()

    # Those who came by that link before are in, also after a restart.
    ada.control.stop()
    assert ada.program is not None
    assert ada.program.wait_end() == 0
    ada.join()
    meets(ada, founder_id)
    meets(founder, ada_id)
    members = swarm.run("members", "--state-dir", founder.state_dir).stdout
    assert [line for line in members.splitlines() if "banned" in line and short(banned) in line]
