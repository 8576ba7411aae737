"""``p2pd invite`` and ``p2pd ban`` against a real rendezvous."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.host.state_paths import ADMITTED_FILE
from daemon.swarm.admitted import AdmissionFile
from protocol.admission import AdmissionBook, DeniedError, prove_admission
from protocol.identity import Identity
from protocol.invite import Invite
from protocol.swarm import Swarm
from tests.cli.conftest import CommandLine
from tests.cli.servers import left_with, rendezvous_process


@pytest.fixture
def rendezvous(p2pd: CommandLine, tmp_path: Path) -> Iterator[str]:
    """The URI of one that runs."""
    with rendezvous_process(p2pd, tmp_path / "rendezvous") as uri:
        yield uri


class Founding:
    """A swarm that was founded by the command line."""

    def __init__(self, p2pd: CommandLine, uri: str) -> None:
        self.p2pd = p2pd
        self.uri = uri
        done = p2pd(
            "create", "--task", "digits", "--rendezvous", uri, "--invite-uses", "1", "--json"
        )
        assert done.returncode == 0, done.stderr
        self.created = json.loads(done.stdout)
        self.state_dir = Path(self.created["state_dir"])
        self.invite = Invite.parse(self.created["link"])

    def swarm(self) -> Swarm:
        """As the rendezvous has it."""
        return left_with(self.uri, self.invite.swarm_id)

    def lets_in(self, invite: Invite, peer: Identity) -> bool:
        """Whether a peer that knows the statement, and nothing from before, admits ``peer``."""
        proof = prove_admission(invite.token_secret, invite.swarm_id, peer.peer_id)
        try:
            AdmissionBook(self.swarm()).check(peer.peer_id, proof, now_ms=self._now_ms())
        except DeniedError:
            return False
        return True

    def _now_ms(self) -> int:
        return min(token.expires_ms for token in self.swarm().statement.tokens) - 1


@pytest.fixture
def founding(p2pd: CommandLine, rendezvous: str) -> Founding:
    """One."""
    return Founding(p2pd, rendezvous)


def test_further_invite_is_known_to_the_rendezvous_and_those_let_in_become_members(
    founding: Founding,
) -> None:
    early, late = Identity.generate(), Identity.generate()
    (token,) = founding.swarm().statement.tokens
    AdmissionFile(founding.state_dir / ADMITTED_FILE).keep(
        {token.public_key: frozenset({early.peer_id})}
    )
    done = founding.p2pd("invite", "--uses", "2", "--days", "3")
    assert done.returncode == 0, done.stderr
    invite = Invite.parse(done.stdout)
    assert done.stdout == f"{invite}\n"
    assert invite.rendezvous == founding.invite.rendezvous
    statement = founding.swarm().statement
    assert statement.version == 2
    assert [one.uses for one in statement.tokens] == [1, 2]
    assert statement.members == (early.public_key,)
    assert founding.lets_in(invite, late)
    assert founding.lets_in(founding.invite, late)
    assert (founding.state_dir / "swarm.statement").read_bytes() == founding.swarm().raw


def test_banned_peer_is_out_until_the_ban_is_lifted(founding: Founding) -> None:
    peer = Identity.generate()
    assert founding.lets_in(founding.invite, peer)
    done = founding.p2pd("ban", peer.peer_id)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{peer.peer_id} is banned\n"
    assert not founding.lets_in(founding.invite, peer)
    done = founding.p2pd("ban", peer.peer_id[:10], "--lift")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{peer.peer_id} may take part again\n"
    assert founding.lets_in(founding.invite, peer)


def test_who_is_meant_must_be_clear(founding: Founding) -> None:
    done = founding.p2pd("ban", "zzzz")
    assert done.returncode == 78
    assert "no peer that was let in here has an id that begins with 'zzzz'" in done.stderr
    done = founding.p2pd("ban", founding.created["founder"])
    assert done.returncode == 78
    assert "founder's own id" in done.stderr


def test_only_the_founder_can(p2pd: CommandLine, tmp_path: Path) -> None:
    done = p2pd("invite")
    assert done.returncode == 78
    assert "no swarm was founded here; 'p2pd create' founds one" in done.stderr
    done = p2pd("invite", "--state-dir", str(tmp_path / "nothing"))
    assert done.returncode == 78
    assert "there is no peer in" in done.stderr


def test_state_of_a_peer_that_founded_nothing_is_told_apart(
    founding: Founding, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    (other / "identity.key").write_bytes(Identity.generate().secret)
    (other / "identity.key").chmod(0o600)
    (other / "swarm.statement").write_bytes(founding.swarm().raw)
    done = founding.p2pd("invite", "--state-dir", str(other))
    assert done.returncode == 78
    assert "only its founder can do this" in done.stderr
    assert founding.swarm().statement.version == 1
