"""The states of an agreement: the table, and the drawing that is made from it."""

from pathlib import Path

from daemon.rounds.agreement.states import TRANSITIONS, AgreementState, as_mermaid

PAGE = Path(__file__).resolve().parents[2] / "docs" / "agreement.md"


def test_drawing_in_the_document_is_the_table_in_the_code() -> None:
    drawn = PAGE.read_text().split("```mermaid\n")[1].split("```")[0].strip()
    assert drawn == as_mermaid()


def test_every_state_can_be_come_to_and_only_ends_have_no_way_out() -> None:
    reached = {AgreementState.OPEN, *TRANSITIONS.values()}
    left = {state for state, _ in TRANSITIONS}
    assert reached == set(AgreementState)
    assert set(AgreementState) - left == {AgreementState.DECIDED, AgreementState.FAILED}
