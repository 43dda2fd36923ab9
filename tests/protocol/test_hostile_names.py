"""
Names that clients send and that would be paths: none of them ever leads anywhere.

The only text of a client's that becomes part of a file's name is that of a replication slot, and
`walsender.replication_slots.check_name` permits lower case letters, digits and the underscore.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from protocol_helpers import ClockReactor, ProtocolTestCase, Server, error_fields, kinds
from twisted.internet.threads import deferToThreadPool

from walsender.replication_slots import REAL_SLOT_FILES, SLOTS_DIRECTORY, ReplicationSlots, SlotStorage
from walsender.wire.dialect import ModernDialect

if TYPE_CHECKING:
    from pathlib import Path

# Each as it stands in quotes.
NAMES = (
    "..",
    ".",
    "/",
    "../x",
    "../../x",
    "/etc/passwd",
    "x/../../y",
    "x/y",
    "x.slot",
    "x\\..",
    "x\0",
    "~",
    "$HOME",
    "%2e%2e",
    "é",
    "X",
    "x y",
    "x\n",
    "..\u2215x",
    "",
)
# Every command of every version with a name in it.
COMMANDS = (
    'CREATE_REPLICATION_SLOT "{}" PHYSICAL',
    'CREATE_REPLICATION_SLOT "{}" PHYSICAL RESERVE_WAL',
    'CREATE_REPLICATION_SLOT "{}" TEMPORARY PHYSICAL',
    'CREATE_REPLICATION_SLOT "{}" LOGICAL "{}"',
    'DROP_REPLICATION_SLOT "{}"',
    'DROP_REPLICATION_SLOT "{}" WAIT',
    'READ_REPLICATION_SLOT "{}"',
    'ALTER_REPLICATION_SLOT "{}" (FAILOVER)',
    'START_REPLICATION SLOT "{}" 0/100000',
    'START_REPLICATION SLOT "{}" LOGICAL 0/100000',
    "BASE_BACKUP (LABEL '{}', TARGET 'server', TARGET_DETAIL '{}')",
    "SHOW {}",
    "SET application_name TO '{}'",
)


class HostileNameTests(ProtocolTestCase):
    def setUp(self) -> None:
        """A server with a state directory, in a directory in which something stands that must stay."""
        self.outside = self.directory()
        (self.outside / "x").write_text("precious")
        self.state = self.outside / "state"
        self.server = self.make(self.state)

    def make(self, state: Path) -> Server:
        """Return a server over a state directory."""
        reactor = ClockReactor()

        def run_in_thread(function: Any, *arguments: Any) -> Any:
            return deferToThreadPool(reactor, reactor.pool, function, *arguments)  # type: ignore[arg-type]

        storage = SlotStorage(REAL_SLOT_FILES, str(state), lambda: state.mkdir(exist_ok=True))
        slots = ReplicationSlots(storage, 100, reactor, run_in_thread)
        slots.load()
        return Server(self.scripted_source(0x300000), ModernDialect(180000), reactor=reactor, slots=slots)

    def tree(self) -> dict[str, str | None]:
        """Return what stands in the directory: names, and what is in each file."""
        return {
            str(path.relative_to(self.outside)): path.read_text(errors="replace") if path.is_file() else None
            for path in self.outside.rglob("*")
        }

    def test_noCommandLeavesTheStateDirectory(self) -> None:
        """Whatever is named in whatever command: nothing is made, changed, removed, or read."""
        before = self.tree()
        for command in COMMANDS:
            for name in NAMES:
                client = self.server.started()
                answer = client.ask(command.format(name, name))
                self.assertNotIn(b"precious", answer)
                client.transport.lose()
        after = self.tree()
        self.assertEqual(before, {name: after[name] for name in before})
        self.assertEqual(
            {"state", f"state/{SLOTS_DIRECTORY}"} | set(before), {*after, "state", f"state/{SLOTS_DIRECTORY}"}
        )

    def test_slotNamesAreRefused(self) -> None:
        """A name that would be a path is no name of a slot: 42602 or 42622, or no command at all."""
        for name in NAMES:
            fields = error_fields(self.server.started().ask(f'CREATE_REPLICATION_SLOT "{name}" PHYSICAL'))
            self.assertIn(fields["C"], {"42602", "42622", "42601", "08P01"}, name)

    def test_linksAreNotFollowed(self) -> None:
        """A link in the place of a slot's file is replaced, and what it leads to stays as it is."""
        (self.state / SLOTS_DIRECTORY).mkdir(parents=True, exist_ok=True)
        for name in ("a.slot", "a.slot.tmp", "a.tmp"):
            (self.state / SLOTS_DIRECTORY / name).symlink_to(self.outside / "x")
        answer = self.server.started().ask("CREATE_REPLICATION_SLOT a PHYSICAL")
        self.assertEqual(b"TDCZ", kinds(answer))
        self.assertEqual("precious", (self.outside / "x").read_text())
        self.assertFalse((self.state / SLOTS_DIRECTORY / "a.slot").is_symlink())
