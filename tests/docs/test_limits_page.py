from pathlib import Path

from tests.docs.limits_page import limits_page

PAGE = Path(__file__).parents[2] / "docs" / "limits.md"


def test_page_of_limits_says_what_the_code_does() -> None:
    assert PAGE.read_text() == limits_page(), "python -m tests.docs.limits_page > docs/limits.md"
