"""docs/documents.md says what the commands print with --json."""

import json
import re

import msgspec

from daemon.cli.completion import subparsers
from daemon.cli.documents.page import DOCUMENTS, documents_page
from daemon.cli.entry import build_parser
from tests.cli.conftest import ROOT
from tests.web.invented import InventedPeer


def test_the_page_in_docs_is_the_one_that_the_code_makes() -> None:
    assert (ROOT / "docs" / "documents.md").read_text() == documents_page()


def test_every_field_of_a_real_document_is_in_the_page() -> None:
    page, peer = documents_page(), InventedPeer(5)
    for document in (peer.status(), peer.history(0)):
        shown = json.loads(msgspec.json.encode(document))
        waiting = [shown]
        while waiting:
            one = waiting.pop()
            if isinstance(one, list):
                waiting += one
            elif isinstance(one, dict):
                for name, value in one.items():
                    if re.fullmatch(r"[a-z]{52}", name) is None:  # a peer's id
                        assert f"| `{name}` |" in page
                    waiting.append(value)


def test_documents_have_their_schema_first() -> None:
    for title, kind, _ in DOCUMENTS:
        assert title == "Log line" or kind.__struct_fields__[0] == "schema"


def test_every_command_with_json_has_its_document_in_the_page() -> None:
    page, waiting = documents_page(), [("p2pd", build_parser())]
    while waiting:
        name, parser = waiting.pop()
        waiting += [(f"{name} {inner}", found) for inner, found in subparsers(parser).items()]
        if any("--json" in action.option_strings for action in parser._actions):
            assert f"`{name} --json`" in page
