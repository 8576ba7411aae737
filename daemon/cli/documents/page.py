"""docs/documents.md, made from the documents' own types:
``python -m daemon.cli.documents.page``.
"""

import ast
import inspect
import re
from itertools import pairwise
from typing import Any

import msgspec
import msgspec.inspect

from daemon.cli.documents import kinds
from daemon.cli.netcheck.report import NetReport
from daemon.control.history import History
from daemon.control.status import Status
from daemon.host.log_line import LogLine
from daemon.net.measuring.results import SpeedResult
from daemon.web.round_hook import RoundNews

DOCUMENTS: tuple[tuple[str, type[msgspec.Struct], str], ...] = (
    ("Status", Status, "`p2pd status --json`."),
    ("Peers", kinds.Peers, "`p2pd peers --json`."),
    ("History", History, "`p2pd history --json`."),
    ("Log line", LogLine, "`p2pd logs --json`, one a line; without `schema`."),
    ("Round", RoundNews, "One line on the standard input of `p2pd join --on-round COMMAND`."),
    ("Pings", kinds.Pings, "`p2pd ping --json`."),
    ("Speed", SpeedResult, "`p2pd speed --json`."),
    ("Network", NetReport, "`p2pd netcheck --json`."),
    ("Export", kinds.Export, "`p2pd export --json`."),
    ("Identity", kinds.Identity, "`p2pd id --json`."),
    ("Page", kinds.Page, "`p2pd web --json`."),
    ("Founded swarm", kinds.Founded, "`p2pd create --json`."),
    ("New invite", kinds.NewInvite, "`p2pd invite --json`."),
    ("Invites", kinds.Invites, "`p2pd invite --list --json`."),
    ("Revoked invite", kinds.Revoked, "`p2pd invite --revoke N --json`."),
    ("Members", kinds.Members, "`p2pd members --json`."),
    ("Settings", kinds.Settings, "`p2pd config show --json`."),
    ("Findings", kinds.Findings, "`p2pd doctor --json`."),
    ("Checked task", kinds.CheckedTask, "`p2pd task check --json`."),
    ("Demo", kinds.DemoResult, "`p2pd demo --json`."),
)
"""Title, type, and where it is printed."""

HEAD = """\
# JSON documents

What the commands print with `--json`, field by field. This page is made from the code by
`python -m daemon.cli.documents.page > docs/documents.md`.

Each document has `"schema": 1`. Fields may be added under that number. One that is renamed, removed
or changes its meaning raises it. Times are seconds and sizes bytes, unless the name says otherwise.
`null` is "not known (yet)". Names and reasons that other peers chose are as they sent them: escape
them before you print them.
"""


def documents_page() -> str:
    """The whole page."""
    parts, told = [HEAD], set[str]()
    for title, kind, where in DOCUMENTS:
        (_, definitions) = msgspec.json.schema_components([kind], ref_template="{name}")
        parts.append(f"## {title}\n\n{where}\n\n{_table(kind, definitions)}")
        for inner in _structs_in(kind):
            if inner.__name__ not in told:
                told.add(inner.__name__)
                about = inspect.cleandoc(inner.__doc__ or "").partition("\n")[0]
                table = _table(inner, definitions)
                parts.append(f"### {inner.__name__}\n\n{about}\n\n{table}")
    return "\n".join(parts)


def _structs_in(kind: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    """The structures that fields of ``kind`` hold, and theirs."""
    found: list[type[msgspec.Struct]] = []
    waiting = [one.type for one in msgspec.inspect.type_info(kind).fields]  # type: ignore[attr-defined]  # of a Struct
    while waiting:
        one = waiting.pop(0)
        match one:
            case msgspec.inspect.StructType(cls=cls, fields=fields):
                if cls not in found:
                    found.append(cls)
                    waiting += [field.type for field in fields]
            case msgspec.inspect.UnionType(types=types):
                waiting += types
            case (
                msgspec.inspect.ListType(item_type=item)
                | msgspec.inspect.VarTupleType(item_type=item)
            ):
                waiting.append(item)
            case msgspec.inspect.DictType(value_type=value):
                waiting.append(value)
    return found


def _table(kind: type[msgspec.Struct], definitions: dict[str, Any]) -> str:
    said = _said_of_fields(kind)
    rows = [
        f"| `{name}` | {_type(field, definitions)} | {said.get(name, '')} |"
        for name, field in definitions[kind.__name__]["properties"].items()
    ]
    return "\n".join(["| field | type | what it says |", "|---|---|---|", *rows, ""])


def _said_of_fields(kind: type[msgspec.Struct]) -> dict[str, str]:
    """The words behind each field in the code, on one line and without the code's marks."""
    (tree,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)
    said: dict[str, str] = {}
    for field, words in pairwise(tree.body):
        match field, words:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(
                value=ast.Constant(value=str(text))
            ):
                plain = re.sub(r":\w+:`(?:[\w.]*\.)?(\w+)`", r"\1", " ".join(text.split()))
                said[name] = plain.replace("``", "`")
    return said


def _type(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_type(one, definitions) for one in field["anyOf"])
    if "$ref" in field:
        values = definitions[field["$ref"]].get("enum")
        if values is not None:
            return " or ".join(f"`{value}`" for value in values)
        return f"[{field['$ref']}](#{field['$ref'].lower()})"
    if field.get("type") == "array":
        return f"list of {_type(field['items'], definitions)}" if field.get("items") else "list"
    if field.get("type") == "object" and "additionalProperties" in field:
        return f"object of {_type(field['additionalProperties'], definitions)}"
    return str(field.get("type", "any"))


if __name__ == "__main__":
    print(documents_page(), end="")
