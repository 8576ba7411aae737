"""What a round asks of others, since its signers do not give it."""

from daemon.rounds.kinds.elsewhere import LOOK_S, Elsewhere
from protocol.identity import PeerId, peer_id_of
from protocol.peers.agreement_messages import UpdateRef

KEY = b"k" * 32
SIGNER = peer_id_of(KEY)
REF = UpdateRef(signer=KEY, digest=b"d" * 32)
ANN, BOB, EVE = (PeerId(name) for name in ("ann", "bob", "eve"))


def test_what_is_missing_at_two_looks_is_asked_for_once() -> None:
    asks = Elsewhere(most=2)
    listed = {REF: {ANN}}
    assert asks.look({SIGNER}, listed, 10.0) == []
    assert not asks.is_due({SIGNER}, 10.0)
    assert asks.get_timer({SIGNER}) == 10.0 + LOOK_S
    assert asks.look({SIGNER}, listed, 10.0 + LOOK_S) == [(REF, (ANN,))]
    assert asks.look({SIGNER}, listed, 10.0 + 2 * LOOK_S) == []
    assert asks.get_timer(set()) is None


def test_more_than_can_lie_are_asked_and_no_more_than_that() -> None:
    asks = Elsewhere(most=2)
    asks.look({SIGNER}, {REF: {EVE}}, 0.0)
    assert asks.look({SIGNER}, {REF: {EVE}}, 1.0) == [(REF, (EVE,))]
    assert asks.look({SIGNER}, {REF: {ANN, BOB, EVE}}, 2.0) == [(REF, (ANN,))]
    assert asks.look({SIGNER}, {REF: {ANN, BOB, EVE}}, 3.0) == []


def test_nobody_is_asked_for_what_comes_or_what_its_signer_alone_has() -> None:
    asks = Elsewhere(most=2)
    for now in (0.0, 1.0, 2.0):
        assert asks.look(set(), {REF: {ANN}}, now) == []
        assert asks.look({SIGNER}, {REF: {SIGNER}}, now) == []


def test_where_a_signer_is_known_to_give_nothing_others_are_asked_at_once() -> None:
    asks = Elsewhere(most=2)
    assert asks.is_due({SIGNER}, 0.0, {SIGNER})
    assert asks.look({SIGNER}, {REF: {ANN}}, 0.0, {SIGNER}) == [(REF, (ANN,))]
    assert asks.look({SIGNER}, {REF: {ANN}}, 0.1, {SIGNER}) == []


def test_what_liars_alone_list_is_held_by_nobody() -> None:
    asks = Elsewhere(most=3)
    assert asks.held_by_some({REF: {ANN, BOB}}, here=7) == frozenset()
    assert asks.held_by_some({REF: {ANN, BOB, EVE}}, here=7) == {SIGNER}
    assert asks.held_by_some({REF: {ANN, BOB}}, here=2) == {SIGNER}, "so few are left"
    assert asks.held_by_some({}, here=0) == frozenset()
