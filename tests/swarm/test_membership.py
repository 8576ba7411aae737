"""A peer's place in its swarm: what is stored of it, and what counts."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from daemon.host.damaged import find_damaged
from daemon.host.state_dir import StateDir
from daemon.host.state_paths import ADMITTED_FILE, STATEMENT_FILE
from daemon.net.refusals import Refusals
from daemon.swarm.membership import SwarmPlace, find_place
from protocol.errors import ConfigError
from protocol.identity import Identity
from protocol.statements.admission import NO_PROOF, DeniedError, prove_admission
from protocol.statements.invite import Invite
from protocol.statements.swarm import Swarm, Token, seal_statement
from protocol.uri import HostPort, ServerUri
from tests.full_disk import report_of
from tests.net.swarm_peers import make_swarm
from transport.clock import Clock

FOUNDER, ME, OTHER, TOKEN = (Identity(letter * 32) for letter in (b"f", b"m", b"o", b"t"))
ROOT = Path(__file__).resolve().parents[2]


def swarm(version: int = 1, *, revoked_ms: int = 0, banned: tuple[bytes, ...] = ()) -> Swarm:
    """A swarm by invitation."""
    token = Token(
        public_key=TOKEN.public_key,
        expires_ms=Clock().now_ms() + 10**9,
        uses=0,
        number=1,
        revoked_ms=revoked_ms,
    )
    statement = msgspec.structs.replace(
        make_swarm().statement, version=version, open=False, tokens=(token,), banned=banned
    )
    return seal_statement(FOUNDER, statement)


INVITE = Invite(
    swarm().swarm_id, TOKEN.secret, (ServerUri(b"k" * 32, HostPort("127.0.0.1", 5555)),)
)


async def place_in(state_dir: StateDir, rendezvous: Swarm | None) -> SwarmPlace:
    """The place of ``ME``; ``rendezvous``: the statement that it has, None: nobody answers."""

    async def fetch() -> bytes:
        assert rendezvous is not None
        return rendezvous.raw

    clock = Clock()
    return await find_place(
        INVITE,
        ME.peer_id,
        state_dir,
        fetch_statement=fetch,
        refusals=Refusals(clock),
        clock=clock,
    )


async def test_restarted_peer_goes_by_what_is_stored_without_asking(tmp_path: Path) -> None:
    with StateDir(tmp_path / "state") as state_dir:
        await place_in(state_dir, swarm(3))
        place = await place_in(state_dir, None)
        assert place.swarm.statement.version == 3


@pytest.mark.parametrize("content", [b"", b"garbage", swarm().raw[:-1], bytes(10**6)])
async def test_damaged_statement_is_put_aside_and_fetched_anew(
    tmp_path: Path, content: bytes
) -> None:
    with StateDir(tmp_path / "state") as state_dir:
        path = state_dir.path / STATEMENT_FILE
        path.write_bytes(content)
        place = await place_in(state_dir, swarm(2))
        assert place.swarm.statement.version == 2
        assert path.read_bytes() == place.swarm.raw
        assert find_damaged(state_dir.path) == (f"{STATEMENT_FILE}.damaged",)


async def test_peer_that_forgot_that_it_was_let_in_goes_on_after_its_invite_is_over(
    tmp_path: Path,
) -> None:
    with StateDir(tmp_path / "state") as state_dir:
        await place_in(state_dir, swarm())
        (state_dir.path / ADMITTED_FILE).write_bytes(b"garbage")
        newer = swarm(2, revoked_ms=Clock().now_ms())
        state_dir.write_statement(newer.raw)
        place = await place_in(state_dir, newer)
        assert place.swarm == newer


async def test_banned_peer_is_told_so_whether_it_kept_its_state_or_not(tmp_path: Path) -> None:
    banned = swarm(2, banned=(ME.public_key,))
    for name, kept in (("old", True), ("new", False)):
        with StateDir(tmp_path / name) as state_dir:
            if kept:
                await place_in(state_dir, swarm())
                state_dir.write_statement(banned.raw)
            with pytest.raises(ConfigError, match="banned"):
                await place_in(state_dir, banned)


async def test_new_peer_with_a_revoked_invite_is_told_so(tmp_path: Path) -> None:
    refused = pytest.raises(ConfigError, match="was revoked by the swarm's founder")
    with StateDir(tmp_path / "state") as state_dir, refused:
        await place_in(state_dir, swarm(2, revoked_ms=Clock().now_ms()))


async def test_newer_statement_counts_at_once_and_is_stored_when_the_disk_takes_it(
    tmp_path: Path,
) -> None:
    with StateDir(tmp_path / "state") as state_dir:
        place = await place_in(state_dir, swarm())
        place.admission.meet(OTHER.peer_id, proof_of(OTHER), now_ms=Clock().now_ms())
        state_dir.path.rename(tmp_path / "away")
        newer = swarm(2, banned=(OTHER.public_key,))
        assert place.take_statement(None, newer.raw)
        assert place.swarm == newer
        with pytest.raises(DeniedError, match="banned"):
            place.check_admission(OTHER.peer_id, NO_PROOF)
        assert place.unsaved.startswith("the newest swarm statement: cannot write")
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(place.keep_saved(lambda: (), interval_s=0.01))
            await asyncio.sleep(0.03)
            assert place.unsaved
            (tmp_path / "away").rename(state_dir.path)
            while place.unsaved:  # noqa: ASYNC110 — there is no event to wait for.
                await asyncio.sleep(0.01)
            keeping.cancel()
        assert (state_dir.path / STATEMENT_FILE).read_bytes() == newer.raw


def proof_of(peer: Identity) -> bytes:
    """That the token's holder lets ``peer`` in."""
    return prove_admission(TOKEN.secret, swarm().swarm_id, peer.peer_id)


ON_A_FULL_DISK = """
import contextlib, json, sys
from pathlib import Path
from daemon.host.state_dir import StateDir
from daemon.swarm.admitted import AdmittedFile
from tests.swarm.test_membership import ME, OTHER, place_in, proof_of, swarm
import asyncio

with StateDir(Path(sys.argv[1]) / "state") as state_dir:
    place = asyncio.run(place_in(state_dir, swarm()))
    ballast = Path(sys.argv[1]) / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    newer = swarm(2, banned=(ME.public_key,))
    for number in range(100):  # A page may have room for some.
        other = OTHER if number == 99 else type(OTHER)(bytes([number]) * 32)
        place.admission.meet(other.peer_id, proof_of(other), now_ms=1_000_000)
    report = {"taken": place.take_statement(None, newer.raw), "counts": place.is_banned}
    report |= {"old_on_disk": state_dir.read_statement() != newer.raw, "unsaved": place.unsaved}
    file = state_dir.path / "admitted"
    known = lambda: {each.peer for each in AdmittedFile(file).read()}
    report |= {"not_on_disk": OTHER.peer_id not in known()}
    ballast.unlink()

    async def save_again():
        keeping = asyncio.ensure_future(place.keep_saved(lambda: (), interval_s=0.01))
        while place.unsaved:
            await asyncio.sleep(0.01)
        keeping.cancel()

    asyncio.run(save_again())
    report |= {"on_disk_later": state_dir.read_statement() == newer.raw}
    report |= {"met_later": OTHER.peer_id in known()}
print(json.dumps(report))
"""


def test_on_a_full_disk_a_ban_counts_at_once_and_is_stored_later(tmp_path: Path) -> None:
    report = report_of(ON_A_FULL_DISK, tmp_path, "64k")
    assert "No space left on device" in report.pop("unsaved")
    assert report == {
        "taken": True,
        "counts": True,
        "old_on_disk": True,
        "not_on_disk": True,
        "on_disk_later": True,
        "met_later": True,
    }
