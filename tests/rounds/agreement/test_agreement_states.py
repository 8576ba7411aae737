"""The states of an agreement: the table, and the drawing that is made from it."""

from daemon.rounds.agreement.states import TRANSITIONS, AgreementState
from tests.docs.state_drawing import as_mermaid, drawing_in


def test_drawing_in_the_document_is_the_table_in_the_code() -> None:
    assert drawing_in("agreement.md") == as_mermaid(AgreementState.OPEN, TRANSITIONS)


def test_every_state_can_be_come_to_and_only_ends_have_no_way_out() -> None:
    reached = {AgreementState.OPEN, *TRANSITIONS.values()}
    left = {state for state, _ in TRANSITIONS}
    assert reached == set(AgreementState)
    assert set(AgreementState) - left == {AgreementState.DECIDED, AgreementState.FAILED}
