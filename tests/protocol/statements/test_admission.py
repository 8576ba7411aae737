"""Who is admitted to a swarm."""

import base64
from contextlib import suppress

import pytest

from protocol.errors import ConfigError, VerificationError
from protocol.identity import Identity, PeerId, peer_id_of
from protocol.statements.admission import (
    MAX_MET,
    NO_PROOF,
    SEEN_STEP_MS,
    Acquaintance,
    AdmissionBook,
    DeniedError,
    NoMemory,
    prove_admission,
)
from protocol.statements.invite import CHECKSUM_BYTES, Invite
from protocol.statements.swarm import (
    MAX_STATEMENT_BYTES,
    RoundSettings,
    Swarm,
    SwarmStatement,
    TaskReference,
    Token,
    check_successor,
    open_statement,
    seal_statement,
)
from protocol.uri import HostPort, ServerUri

FOUNDER, JOINER, OTHER = (Identity(letter * 32) for letter in (b"f", b"j", b"o"))
TOKEN = Identity(b"t" * 32)
NOW_MS = 1_800_000_000_000


def statement(**changes: object) -> SwarmStatement:
    fields: dict[str, object] = {
        "name": "ours",
        "nonce": b"n" * 16,
        "version": 1,
        "task": TaskReference(
            name="digits",
            builtin=True,
            file_sha256=b"",
            manifest_digest=b"m" * 32,
            seed=1,
            initial_state_digest=b"i" * 32,
        ),
        "settings": RoundSettings(),
        "rendezvous": (),
        "open": False,
        "tokens": (Token(public_key=TOKEN.public_key, expires_ms=NOW_MS + 1000, uses=0),),
        "members": (),
        "banned": (),
    }
    return SwarmStatement(**(fields | changes))  # type: ignore[arg-type]  # a test's shorthand


def swarm(**changes: object) -> Swarm:
    return seal_statement(FOUNDER, statement(**changes))


def proof(where: Swarm, signer: Identity = TOKEN, peer: Identity = JOINER) -> bytes:
    return prove_admission(signer.secret, where.swarm_id, peer.peer_id)


def token(*, uses: int = 0, revoked_ms: int = 0) -> Token:
    return Token(
        public_key=TOKEN.public_key,
        expires_ms=NOW_MS + 1000,
        uses=uses,
        number=1,
        revoked_ms=revoked_ms,
    )


def acquaintance(
    peer: Identity | PeerId, *, met_ms: int = NOW_MS, seen_ms: int | None = None
) -> Acquaintance:
    peer_id = peer.peer_id if isinstance(peer, Identity) else peer
    return Acquaintance(TOKEN.public_key, peer_id, met_ms, seen_ms or met_ms)


class Notebook(NoMemory):
    """Keeps in order what it is told."""

    def __init__(self) -> None:
        self.notes: list[Acquaintance] = []

    def add(self, one: Acquaintance) -> None:
        self.notes.append(one)


class TestAdmission:
    def admit(self, where: Swarm, evidence: bytes, *, now_ms: int = NOW_MS) -> None:
        AdmissionBook(where).check(JOINER.peer_id, evidence, now_ms=now_ms)

    def refused(self, where: Swarm, evidence: bytes, text: str, *, now_ms: int = NOW_MS) -> None:
        with pytest.raises(DeniedError, match=text):
            self.admit(where, evidence, now_ms=now_ms)

    def test_holder_of_an_invite_is_in(self) -> None:
        where = swarm()
        self.admit(where, proof(where))

    def test_without_invite_nobody_is_in(self) -> None:
        self.refused(swarm(), NO_PROOF, "shows no invite")

    def test_founder_members_and_anyone_in_an_open_swarm_need_none(self) -> None:
        AdmissionBook(swarm()).check(FOUNDER.peer_id, NO_PROOF, now_ms=NOW_MS)
        self.admit(swarm(members=(JOINER.public_key,)), NO_PROOF)
        self.admit(swarm(open=True), NO_PROOF)

    def test_expired_invite_is_denied(self) -> None:
        where = swarm()
        self.refused(where, proof(where), "has expired", now_ms=NOW_MS + 1000)

    def test_invite_made_out_to_another_is_denied(self) -> None:
        where = swarm()
        self.refused(where, proof(where, peer=OTHER), "made out to another")

    def test_invite_of_another_swarm_is_denied(self) -> None:
        self.refused(swarm(), proof(swarm(name="another")), "does not verify")

    def test_invite_by_a_stranger_is_denied(self) -> None:
        where = swarm()
        self.refused(where, proof(where, signer=OTHER), "none of this swarm's")

    def test_damaged_invite_is_denied(self) -> None:
        where = swarm()
        evidence = bytearray(proof(where))
        evidence[-1] ^= 1
        self.refused(where, bytes(evidence), "does not verify")

    def test_banned_peer_is_denied_whatever_it_shows(self) -> None:
        where = swarm(banned=(JOINER.public_key,), open=True)
        self.refused(where, proof(where), "banned")

    def test_invite_for_one_admits_the_first_again_but_no_second(self) -> None:
        where = swarm(tokens=(token(uses=1),))
        book = AdmissionBook(where)
        for _ in range(2):
            book.meet(JOINER.peer_id, proof(where), now_ms=NOW_MS)
        with pytest.raises(DeniedError, match="used 1 times already"):
            book.check(OTHER.peer_id, proof(where, peer=OTHER), now_ms=NOW_MS)

    def test_ids_that_nobody_was_met_under_use_nothing_up(self) -> None:
        where = swarm(tokens=(token(uses=1),))
        book = AdmissionBook(where)
        for number in range(100):
            minted = Identity(number.to_bytes(32, "big"))
            book.check(minted.peer_id, proof(where, peer=minted), now_ms=NOW_MS)
        assert book.acquaintances() == []
        book.meet(JOINER.peer_id, proof(where), now_ms=NOW_MS)

    def test_peer_that_was_met_stays_in_when_the_invite_expires_and_after_a_restart(self) -> None:
        where = swarm()
        memory = Notebook()
        book = AdmissionBook(where, memory=memory)
        book.meet(JOINER.peer_id, proof(where), now_ms=NOW_MS)
        assert memory.notes == [acquaintance(JOINER)]
        for later in (book, AdmissionBook(where, met=memory.notes)):
            later.meet(JOINER.peer_id, proof(where), now_ms=NOW_MS + 2000)
            later.check(JOINER.peer_id, NO_PROOF, now_ms=NOW_MS + 2000)
            with pytest.raises(DeniedError, match="has expired"):
                later.check(OTHER.peer_id, proof(where, peer=OTHER), now_ms=NOW_MS + 2000)
        assert len(memory.notes) == 1

    def test_when_a_peer_was_seen_last_is_noted_now_and_then(self) -> None:
        where = swarm()
        memory = Notebook()
        book = AdmissionBook(where, memory=memory)
        book.meet(JOINER.peer_id, proof(where), now_ms=NOW_MS)
        for later_ms in (1000, SEEN_STEP_MS, SEEN_STEP_MS + 1000):
            book.note_seen((JOINER.peer_id, OTHER.peer_id), now_ms=NOW_MS + later_ms)
        assert memory.notes[1:] == [acquaintance(JOINER, seen_ms=NOW_MS + SEEN_STEP_MS)]

    def test_crowd_that_one_invite_lets_in_displaces_no_longer_acquaintance(self) -> None:
        where = swarm()
        crowd = [
            acquaintance(peer_id_of(number.to_bytes(32, "big"))) for number in range(MAX_MET + 10)
        ]
        old = acquaintance(OTHER, met_ms=NOW_MS - 5000, seen_ms=NOW_MS)
        book = AdmissionBook(where, met=[old, *crowd])
        book.meet(JOINER.peer_id, proof(where), now_ms=NOW_MS + 1)
        known = book.acquaintances()
        assert len(known) == MAX_MET
        assert old in known
        assert not book.is_in(JOINER.peer_id)
        book.check(JOINER.peer_id, proof(where), now_ms=NOW_MS + 1)

    def test_revoked_invite_lets_nobody_new_in_and_those_before_stay(self) -> None:
        where = swarm()
        book = AdmissionBook(where)
        book.meet(JOINER.peer_id, proof(where), now_ms=NOW_MS)
        book.replace_statement(swarm(version=2, tokens=(token(revoked_ms=NOW_MS + 1),)))
        book.check(JOINER.peer_id, proof(where), now_ms=NOW_MS + 2)
        with pytest.raises(DeniedError, match="revoked"):
            book.check(OTHER.peer_id, proof(where, peer=OTHER), now_ms=NOW_MS + 2)

    def test_revoked_invite_lets_nobody_in_where_the_clock_is_set_back(self) -> None:
        where = swarm(tokens=(token(revoked_ms=NOW_MS),))
        self.refused(where, proof(where), "revoked", now_ms=NOW_MS - 10**10)

    def test_whoever_came_after_the_revocation_and_before_it_was_heard_of_is_out(self) -> None:
        where = swarm()
        book = AdmissionBook(where)
        book.meet(JOINER.peer_id, proof(where), now_ms=NOW_MS)
        book.meet(OTHER.peer_id, proof(where, peer=OTHER), now_ms=NOW_MS + 20)
        newer = swarm(version=2, tokens=(token(revoked_ms=NOW_MS + 10),))
        for later in (book, AdmissionBook(newer, met=book.acquaintances())):
            later.replace_statement(newer)
            assert later.is_in(JOINER.peer_id)
            assert not later.is_in(OTHER.peer_id)

    def test_whoever_was_met_stays_in_when_its_invite_has_left_the_statement(self) -> None:
        where = swarm()
        book = AdmissionBook(where)
        book.meet(JOINER.peer_id, proof(where), now_ms=NOW_MS)
        book.replace_statement(swarm(version=2, tokens=()))
        book.meet(JOINER.peer_id, proof(where), now_ms=NOW_MS)

    def test_newer_statement_counts_from_then_on(self) -> None:
        where = swarm()
        book = AdmissionBook(where)
        book.check(JOINER.peer_id, proof(where), now_ms=NOW_MS)
        book.replace_statement(swarm(version=2, banned=(JOINER.public_key,)))
        with pytest.raises(DeniedError, match="banned"):
            book.check(JOINER.peer_id, proof(where), now_ms=NOW_MS)


class TestStatement:
    def test_is_opened_by_its_id(self) -> None:
        made = swarm()
        assert open_statement(made.raw, swarm_id=made.swarm_id, now_ms=NOW_MS) == made

    def test_of_another_founder_under_this_id_is_refused(self) -> None:
        made = swarm()
        forged = seal_statement(OTHER, statement())
        with pytest.raises(VerificationError, match="for swarm"):
            open_statement(forged.raw, swarm_id=made.swarm_id, now_ms=NOW_MS)

    def test_too_large_is_not_made(self) -> None:
        members = tuple(number.to_bytes(32, "big") for number in range(MAX_STATEMENT_BYTES // 32))
        with pytest.raises(VerificationError, match="at most"):
            swarm(members=members)

    @pytest.mark.parametrize(
        ("before", "after", "may"),
        [
            (8, 9, True),
            (8, 0, True),
            (8, 8, True),
            (8, 7, False),
            (0, 9, False),
            (0, 0, True),
        ],
    )
    def test_last_round_may_only_move_away(self, before: int, after: int, may: bool) -> None:
        old = swarm(settings=RoundSettings(rounds=before))
        new = swarm(version=2, settings=RoundSettings(rounds=after))
        if may:
            assert check_successor(old, new)
        else:
            with pytest.raises(VerificationError, match="changes the training"):
                check_successor(old, new)

    def test_nothing_else_may_change_with_the_last_round(self) -> None:
        old = swarm(settings=RoundSettings(rounds=8))
        new = swarm(version=2, settings=RoundSettings(rounds=9, grace_s=1.0))
        with pytest.raises(VerificationError, match="changes the training"):
            check_successor(old, new)

    def test_higher_version_succeeds_unless_it_changes_the_training(self) -> None:
        old = swarm()
        assert check_successor(old, swarm(version=2, open=True))
        assert not check_successor(old, old)
        with pytest.raises(VerificationError, match="changes the training"):
            check_successor(old, swarm(version=2, settings=RoundSettings(rounds=7)))
        with pytest.raises(VerificationError, match="another swarm"):
            check_successor(old, swarm(name="another"))


class TestInviteLink:
    LINK = Invite(b"i" * 32, b"t" * 32, (ServerUri(b"k" * 32, HostPort("::1", 5555)),))

    def test_is_read_as_it_was_written_also_broken_over_lines(self) -> None:
        text = str(self.LINK)
        assert Invite.parse(text) == self.LINK
        assert Invite.parse(f"  {text[:40]}\n{text[40:]}\n") == self.LINK

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("https://example.org", "starts with 'p2pd:'"),
            ("p2pd:", "damaged"),
            ("p2pd:AAAA", "damaged"),
            (str(LINK)[:-4], "damaged"),
            ("p2pd:" + "A" * 5000, "pasted whole"),
            ("p2pd:ü", "damaged"),
        ],
    )
    def test_what_is_none_is_explained(self, text: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            Invite.parse(text)

    def test_one_wrong_character_anywhere_is_told_as_such(self) -> None:
        text = str(self.LINK)
        for place in range(len("p2pd:"), len(text)):
            for wrong in "A_z7":
                damaged = text[:place] + wrong + text[place + 1 :]
                if damaged == text:
                    continue
                # Of the last character some bits stand for nothing.
                if place == len(text) - 1:
                    with suppress(ConfigError):
                        assert Invite.parse(damaged) == self.LINK
                    continue
                with pytest.raises(ConfigError, match="damaged or incomplete: copy it again"):
                    Invite.parse(damaged)

    def test_server_address_that_is_none_is_a_damaged_link_too(self) -> None:
        wrong = Invite(b"i" * 32, b"", (ServerUri(b"k" * 32, HostPort("::1", 99999)),))
        with pytest.raises(ConfigError, match=r"damaged or incomplete.*1 to 65535"):
            Invite.parse(str(wrong))

    def test_link_without_a_checksum_is_told_as_damaged(self) -> None:
        checked = base64.urlsafe_b64decode(str(self.LINK).removeprefix("p2pd:") + "==")
        unchecked = base64.urlsafe_b64encode(checked[CHECKSUM_BYTES:]).decode().rstrip("=")
        with pytest.raises(ConfigError, match="damaged or incomplete"):
            Invite.parse(f"p2pd:{unchecked}")
