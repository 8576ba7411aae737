"""The states of a session: the table, and the drawing that is made from it."""

from pathlib import Path

from daemon.net.session.states import TRANSITIONS, SessionState, as_mermaid

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sessions.md"


def test_drawing_in_the_document_is_the_table_in_the_code() -> None:
    drawn = PAGE.read_text().split("```mermaid\n")[1].split("```")[0].strip()
    assert drawn == as_mermaid()


def test_every_state_can_be_come_to_and_only_the_end_has_no_way_out() -> None:
    assert {SessionState.NEW, *TRANSITIONS.values()} == set(SessionState)
    assert set(SessionState) - {state for state, _ in TRANSITIONS} == {SessionState.CLOSED}
