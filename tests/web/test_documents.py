"""docs/documents.md says what the commands print with --json."""

import json
import re

import msgspec

from daemon.web.documents import DOCUMENTS, documents_page
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


def test_documents_of_the_same_schema_have_it_first() -> None:
    for _, kind, _ in DOCUMENTS[:2]:
        assert kind.__struct_fields__[0] == "schema"
