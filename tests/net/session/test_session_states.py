"""The states of a session: the table, and the drawing that is made from it."""

from daemon.net.session.states import TRANSITIONS, SessionState
from tests.docs.state_drawing import as_mermaid, drawing_in


def test_drawing_in_the_document_is_the_table_in_the_code() -> None:
    assert drawing_in("sessions.md") == as_mermaid(SessionState.NEW, TRANSITIONS)


def test_every_state_can_be_come_to_and_only_the_end_has_no_way_out() -> None:
    assert {SessionState.NEW, *TRANSITIONS.values()} == set(SessionState)
    assert set(SessionState) - {state for state, _ in TRANSITIONS} == {SessionState.CLOSED}
