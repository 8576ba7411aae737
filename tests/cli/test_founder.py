"""``p2pd invite``, ``p2pd ban`` and ``p2pd members`` against a real rendezvous."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from daemon.cli.output import COLUMNS
from daemon.host.state_dir import Membership, StateDir
from daemon.host.state_paths import ADMITTED_FILE
from daemon.swarm.admitted import AdmittedFile
from daemon.swarm.amend import change_statement, read_founded
from daemon.swarm.invites import MAX_MEMBERS, MAX_TOKENS, members_after
from protocol.identity import Identity, peer_id_of, public_key_of
from protocol.statements.admission import Acquaintance, AdmissionBook, DeniedError, prove_admission
from protocol.statements.invite import Invite
from protocol.statements.swarm import Swarm, SwarmStatement, Token, seal_statement
from protocol.uri import ServerUri
from rendezvous import RendezvousClient
from tests.cli.conftest import CommandLine
from tests.cli.servers import left_with, server_process
from tests.net.swarm_peers import make_swarm
from transport.curve import CurveKeys

pytestmark = pytest.mark.usefixtures("trainers_at_once")


@pytest.fixture
def rendezvous(p2pd: CommandLine, tmp_path: Path) -> Iterator[str]:
    """The URI of one that runs."""
    with server_process(p2pd, tmp_path / "rendezvous", "rendezvous") as uri:
        yield uri


class Founding:
    """A swarm as ``p2pd create`` leaves it, without the task, which nobody loads here."""

    def __init__(self, p2pd: CommandLine, uri: str) -> None:
        self.p2pd = p2pd
        self.uri = uri
        self.founder = Identity.generate()
        token = Identity.generate()
        expires_ms = int(time.time() * 1000) + 10**9
        swarm = seal_statement(
            self.founder,
            msgspec.structs.replace(
                make_swarm().statement,
                open=False,
                rendezvous=(uri,),
                tokens=(Token(token.public_key, expires_ms, uses=9, number=1),),
            ),
        )
        self.invite = Invite(swarm.swarm_id, token.secret, (ServerUri.parse(uri),))
        self.state_dir = p2pd.state_root / "founded"
        with StateDir(self.state_dir) as state_dir:
            state_dir.keep_identity(self.founder)
            state_dir.write_statement(swarm.raw)
            state_dir.write_membership(Membership(link=str(self.invite)))
        asyncio.run(publish(uri, swarm))

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

    def met(self, *peers: Identity) -> None:
        """The founder's own peer has met ``peers``, which came by the first invite."""
        (token,) = self.swarm().statement.tokens
        file = AdmittedFile(self.state_dir / ADMITTED_FILE)
        file.open()
        for number, peer in enumerate(peers):
            file.add(Acquaintance(token.public_key, peer.peer_id, 1000, 2000 - number))

    def invites(self) -> list[dict[str, object]]:
        """As ``p2pd invite --list`` tells of them."""
        done = self.p2pd("invite", "--list", "--json")
        assert done.returncode == 0, done.stderr
        invites: list[dict[str, object]] = json.loads(done.stdout)["invites"]
        return invites

    def _now_ms(self) -> int:
        return min(token.expires_ms for token in self.swarm().statement.tokens) - 1


async def publish(uri: str, swarm: Swarm) -> None:
    """Leave the statement with the rendezvous."""
    keys = CurveKeys.generate()
    async with RendezvousClient(ServerUri.parse(uri), keys) as client:
        await client.publish_statement(swarm.raw)


@pytest.fixture
def founding(p2pd: CommandLine, rendezvous: str) -> Founding:
    """One."""
    return Founding(p2pd, rendezvous)


def test_further_invite_is_known_to_the_rendezvous_and_those_let_in_become_members(
    founding: Founding,
) -> None:
    early, late = Identity.generate(), Identity.generate()
    founding.met(early)
    done = founding.p2pd("invite", "--uses", "2", "--days", "3")
    assert done.returncode == 0, done.stderr
    invite = Invite.parse(done.stdout)
    assert done.stdout == f"{invite}\n"
    assert invite.rendezvous == founding.invite.rendezvous
    statement = founding.swarm().statement
    assert statement.version == 2
    assert [(one.number, one.uses) for one in statement.tokens] == [(1, 9), (2, 2)]
    assert statement.members == (early.public_key,)
    assert founding.lets_in(invite, late)
    assert founding.lets_in(founding.invite, late)
    assert (founding.state_dir / "swarm.statement").read_bytes() == founding.swarm().raw


def test_ban_ends_the_invite_by_which_the_peer_came_and_others_who_came_by_it_stay(
    founding: Founding,
) -> None:
    banned, stays, again = Identity.generate(), Identity.generate(), Identity.generate()
    founding.met(banned, stays)
    other = Invite.parse(founding.p2pd("invite").stdout)
    done = founding.p2pd("ban", banned.peer_id[:10])
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"{banned.peer_id} is banned\n"
        "revoked: invite 1, by which it came; 'p2pd invite' prints a new link\n"
    )
    assert done.stderr == ""
    assert not founding.lets_in(founding.invite, banned)
    assert not founding.lets_in(other, banned)
    assert not founding.lets_in(founding.invite, again)
    assert founding.lets_in(founding.invite, stays)
    assert founding.lets_in(other, again)
    assert [one["state"] for one in founding.invites()] == ["revoked", "holds"]

    done = founding.p2pd("ban", banned.peer_id[:10], "--lift")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{banned.peer_id} may take part again\n"
    assert founding.lets_in(other, banned)
    assert not founding.lets_in(founding.invite, again)


def test_ban_of_a_peer_that_was_never_met_ends_all_invites_that_hold(founding: Founding) -> None:
    banned, again = Identity.generate(), Identity.generate()
    done = founding.p2pd("ban", banned.peer_id)
    assert done.returncode == 0, done.stderr
    assert "never met it, so all invites that held are revoked: invite 1" in done.stdout
    assert "Take part ('p2pd join') for a while" in done.stderr
    assert not founding.lets_in(founding.invite, again)


def test_ban_may_keep_the_invites(founding: Founding) -> None:
    banned, again = Identity.generate(), Identity.generate()
    founding.met(banned)
    done = founding.p2pd("ban", banned.peer_id, "--keep-invites")
    assert (done.returncode, done.stdout) == (0, f"{banned.peer_id} is banned\n")
    assert not founding.lets_in(founding.invite, banned)
    assert founding.lets_in(founding.invite, again)


def test_invites_are_listed_and_revoked_by_number(founding: Founding) -> None:
    stays, late = Identity.generate(), Identity.generate()
    founding.met(stays)
    assert founding.p2pd("invite").returncode == 0
    done = founding.p2pd("invite", "--revoke", "1")
    assert (done.returncode, done.stdout) == (
        0,
        "invite 1 is revoked: nobody new comes in by it\n",
    )
    first, second = founding.invites()
    assert (first["number"], first["state"], first["uses"]) == (1, "revoked", 9)
    assert first["came"] == [stays.peer_id]
    assert (second["number"], second["state"], second["came"]) == (2, "holds", [])
    assert founding.lets_in(founding.invite, stays)
    assert not founding.lets_in(founding.invite, late)
    shown = founding.p2pd("invite", "--list").stdout.splitlines()
    assert shown[0].split()[:2] == ["NO.", "STATE"]
    assert shown[1].split()[:2] == ["1", "revoked"]
    for number, why in (("1", "was revoked before"), ("7", "there is no invite 7")):
        done = founding.p2pd("invite", "--revoke", number)
        assert done.returncode == 78
        assert why in done.stderr


def test_members_shows_who_came_by_which_invite_and_who_is_banned(founding: Founding) -> None:
    banned, stays = Identity.generate(), Identity.generate()
    founding.met(banned, stays)
    assert founding.p2pd("ban", banned.peer_id).returncode == 0
    done = founding.p2pd("members", "--json")
    assert done.returncode == 0, done.stderr
    members = {one["peer_id"]: one for one in json.loads(done.stdout)["members"]}
    assert members.keys() == {banned.peer_id, stays.peer_id, founding.founder.peer_id}
    assert members[banned.peer_id] == {
        "peer_id": banned.peer_id,
        "invites": [1],
        "founder": False,
        "named": False,
        "banned": True,
        "first_met_ms": 1000,
        "last_seen_ms": 2000,
    }
    assert members[stays.peer_id]["named"]
    assert members[founding.founder.peer_id]["founder"]
    shown = founding.p2pd("members").stdout
    assert len(shown.splitlines()) == 4
    assert max(map(len, shown.splitlines())) <= COLUMNS
    assert f"{banned.peer_id[:8]}  1       banned" in shown


def test_invites_that_hold_never_give_way_to_a_new_one(founding: Founding) -> None:
    def fill(statement: SwarmStatement) -> SwarmStatement:
        (first,) = statement.tokens
        return msgspec.structs.replace(
            statement,
            tokens=tuple(
                msgspec.structs.replace(
                    first, public_key=Identity.generate().public_key, number=number
                )
                for number in range(1, MAX_TOKENS + 1)
            ),
        )

    asyncio.run(change_statement(read_founded(founding.state_dir), fill))
    done = founding.p2pd("invite")
    assert done.returncode == 78
    assert f"{MAX_TOKENS} invites are out and still hold" in done.stderr
    assert founding.p2pd("invite", "--revoke", "3").returncode == 0
    assert founding.p2pd("invite").returncode == 0
    numbers = [one["number"] for one in founding.invites()]
    assert numbers == [1, 2, *range(4, MAX_TOKENS + 2)]


def test_statement_names_the_longest_acquaintances_and_no_more_than_fit(
    founding: Founding,
) -> None:
    crowd = [
        Acquaintance(bytes(32), peer_id_of(number.to_bytes(32, "big")), 0, 5)
        for number in range(MAX_MEMBERS + 100)
    ]
    old = Acquaintance(bytes(32), Identity.generate().peer_id, 0, 1000)
    named = members_after(founding.swarm().statement, [*crowd, old])
    assert len(named) == MAX_MEMBERS
    assert named[0] == public_key_of(old.peer)


def test_who_is_meant_must_be_clear(founding: Founding) -> None:
    done = founding.p2pd("ban", "zzzz")
    assert done.returncode == 78
    assert "no peer that was let in here has an id that begins with 'zzzz'" in done.stderr
    done = founding.p2pd("ban", founding.founder.peer_id)
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
