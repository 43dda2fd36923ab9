"""What the documents say of tests and errors is true."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

import walsender.console  # noqa: F401 (its errors register with their base)
from walsender.errors import WalsenderError, file_error

ROOT: Final = Path(__file__).parents[2]
NAMED: Final = re.compile(r"`(test_\w+)\.(test_\w+)`")
TRAPS: Final = 50

#: The rooms whose errors clients see; what `source` finds is worded by `wire`.
ROOMS: Final = ("auth", "console", "replication_slots", "sender", "source/held.py", "wire")
#: What no client is told: the connection is closed, the server does not start, or an upstream is at fault.
UNTOLD: Final = {
    "AccessFileError",
    "ConfigurationError",
    "IllegalTransition",
    "InvalidMessageLength",
    "InvalidPacketLength",
    "UnknownStandbyMessage",
}
UNTOLD_FILES: Final = {
    "backend.py",  # what clients of ours read
    "state.py",  # of a slot: DataCorrupted is logged when slots are loaded
    "storage.py",
}


@functools.cache
def every_test() -> frozenset[tuple[str, str]]:
    """Return all tests by file and function."""
    return frozenset(
        (path.stem, node.name)
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def rows(document: str) -> list[list[str]]:
    """Return the cells of all rows of tables in a document."""
    lines = (ROOT / "docs" / document).read_text().splitlines()
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line.startswith("| ")]


class NamedTestsTests(SynchronousTestCase):
    """Documents name tests as file and function."""

    def test_exist(self) -> None:
        """Every test that a document names is there."""
        for document in (ROOT / "docs").glob("*.md"):
            for named in NAMED.findall(document.read_text()):
                self.assertIn(named, every_test(), document.name)

    def test_everyTrapHasOne(self) -> None:
        """Each of the fifty names a test, or says why it needs none."""
        numbered = [row for row in rows("traps.md") if row[0].isdecimal()]
        self.assertEqual([str(number) for number in range(1, TRAPS + 1)], [row[0] for row in numbered])
        for _, trap, test in numbered:
            self.assertTrue(NAMED.search(test) or test.startswith("cannot "), trap)


def subclasses(of: type[WalsenderError]) -> dict[str, type[WalsenderError]]:
    """Return all errors by name."""
    found = {of.__name__: of}
    for one in of.__subclasses__():
        found |= subclasses(one)
    return found


def text_of(node: ast.expr) -> str | None:
    """Return the text that a literal is, with an ellipsis for what varies."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return None


def raised_texts() -> set[tuple[str, str]]:
    """Return text and SQLSTATE of what the rooms raise; an empty SQLSTATE if the system's error decides."""
    errors = subclasses(WalsenderError)
    found = set()
    for room in ROOMS:
        place = ROOT / "walsender" / room
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
                    continue
                name, text = node.func.id, text_of(node.args[0])
                if text is None or name in UNTOLD or (name == "DataCorrupted" and path.name in UNTOLD_FILES):
                    continue
                if name in errors and path.name != "backend.py":
                    found.add((text, errors[name].sqlstate))
                elif name == file_error.__name__:
                    found.add((f"{text}: …", ""))
    return found


class ErrorTests(SynchronousTestCase):
    """docs/errors.md lists what clients are told."""

    def test_everyTextIsListed(self) -> None:
        """Each text that the program has stands in a row with its SQLSTATE and a test."""
        listed = {row[0].strip("`"): row for row in rows("errors.md") if len(row) == 4}
        for text, sqlstate in raised_texts():
            pattern = ".*".join(map(re.escape, text.split("…")))
            codes = [row[1] for known, row in listed.items() if re.fullmatch(pattern, known)]
            self.assertTrue(any(sqlstate in code for code in codes), (text, sqlstate))

    def test_everyRowNamesATest(self) -> None:
        """No row is without."""
        for row in rows("errors.md"):
            if row[0] != "text":
                self.assertTrue(NAMED.search(row[-1]), row[0])
