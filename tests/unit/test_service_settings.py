"""Each setting gets where it has its effect: at the start, and with a reload where it can."""

from __future__ import annotations

import resource
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from protocol_helpers import ClockReactor
from twisted.trial.unittest import SynchronousTestCase

from walsender import service
from walsender.retention.decision import Limits
from walsender.sender import Logged
from walsender.service import WalSenderService
from walsender.settings import SETTINGS, Settings
from walsender.testing.wal_maker import WalMaker

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Way:
    """
    Where a setting goes.

    :ivar read: takes from a service what the setting has become.
    :ivar values: texts for the file, the first for the start, and what they become.
    """

    read: Callable[[Any], object]
    values: dict[str, object]


OF_BOTH = {
    "wal_sender_timeout": Way(lambda one: one.factory.wal_sender_timeout, {"7s": 7.0, "8s": 8.0}),
    "wal_sender_shutdown_timeout": Way(
        lambda one: one.settings.wal_sender_shutdown_timeout, {"7s": 7.0, "8s": 8.0}
    ),
    "authentication_timeout": Way(lambda one: one.factory.authentication_timeout, {"7s": 7.0, "8s": 8.0}),
    "sendfile": Way(lambda one: one.factory.sendfile, {"off": False, "on": True}),
    "cold_read_rate": Way(lambda one: one.factory.giving_way.rate, {"0": 0, "5MB": 5 << 20}),
    "max_wal_senders": Way(lambda one: one.factory.slot_table.limit, {"7": 7, "8": 7}),
    "max_replication_slots": Way(lambda one: one.slots.limit, {"7": 7, "8": 7}),
    "protocol_dialect": Way(
        lambda one: type(one.factory.dialect).__name__, {"8.5": "FirstDialect", "auto": "FirstDialect"}
    ),
    "restore_command": Way(
        lambda one: [getattr(each, "_command", "") for each in one._supply._archive.providers(one.settings)],
        {"'a %f'": ["a %f"], "'b %f'": ["b %f"]},
    ),
    "log_connections": Way(
        lambda one: one.factory.logged,
        {"on": Logged(("receipt", "authentication", "authorization")), "receipt": Logged(("receipt",))},
    ),
    "log_disconnections": Way(lambda one: one.factory.logged.disconnections, {"on": True, "off": False}),
    "log_replication_commands": Way(
        lambda one: one.factory.logged.replication_commands, {"on": True, "off": False}
    ),
    "update_process_title": Way(lambda one: one._supervisor._shows_title(), {"off": False, "on": True}),
}
OF_A_DIRECTORY = {
    "wal_sender_delay": Way(lambda one: one.source.delay, {"7ms": 0.007, "8ms": 0.008}),
    "fsync": Way(lambda one: one.source._follower._sync, {"off": False, "on": False}),
    "inotify": Way(lambda one: one.source._notifier is not None, {"off": False, "on": False}),
}
OF_A_RELAY = {
    "primary_conninfo": Way(
        lambda one: one._supply._receiver._connector._parameters["host"], {"'host=a'": "a", "'host=b'": "b"}
    ),
    "primary_slot_name": Way(lambda one: one._supply._receiver._settings.slot_name, {"a": "a", "b": "b"}),
    "create_primary_slot": Way(
        lambda one: one._supply._receiver._settings.create_slot, {"on": True, "off": False}
    ),
    "wal_receiver_timeout": Way(lambda one: one._supply._receiver._settings.timeout, {"7s": 7.0, "8s": 8.0}),
    "wal_receiver_status_interval": Way(
        lambda one: one._supply._receiver._settings.status_interval, {"7s": 7.0, "8s": 8.0}
    ),
    "wal_retrieve_retry_interval": Way(
        lambda one: one._supply._receiver._settings.retry_interval, {"7s": 7.0, "8s": 8.0}
    ),
    "hot_standby_feedback": Way(
        lambda one: one._supply._receiver._feedback is not None, {"on": True, "off": False}
    ),
    "wal_keep_size": Way(lambda one: one._supply._remover._limits.keep, {"7MB": 7 << 20, "-1": None}),
    "max_slot_wal_keep_size": Way(
        lambda one: one._supply._remover._limits, {"7MB": Limits(None, 7 << 20), "-1": Limits(None, None)}
    ),
    "max_wal_directory_size": Way(lambda one: one.source.room.limit, {"7MB": 7 << 20, "-1": None}),
}


class ServiceTests(SynchronousTestCase):
    """A service that is made, and told to reload."""

    def setUp(self) -> None:
        """Make a directory of WAL, and a file."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.file = self.directory / "walsender.conf"
        self.reactor: Any = ClockReactor()

    def service(self, *lines: str) -> WalSenderService:
        """Return a service of these lines of its file."""
        self.file.write_text("\n".join((f"wal_directory = '{self.directory}/wal'", *lines)))

        def load() -> Settings:
            return Settings.load([("config-file", str(self.file))])

        return WalSenderService(self.reactor, load(), reload=load, handle_signals=True)

    def check(self, ways: dict[str, Way], *lines: str) -> None:
        """Check each of *ways*."""
        for name, way in ways.items():
            found = []
            made = None
            for value in way.values:
                if made is None:
                    made = self.service(*lines, f"{name} = {value}")
                else:
                    with self.file.open("a") as file:
                        file.write(f"\n{name} = {value}")
                    made.reload()
                found.append(way.read(made))
            self.assertEqual(list(way.values.values()), found, name)
            # What is not taken over is what needs a restart.
            (setting,) = (one for one in SETTINGS if one.name == name)
            self.assertEqual(len(set(map(str, found))) == 1, setting.restart_required, name)

    def test_directory(self) -> None:
        """Over a directory that others fill."""
        maker = WalMaker()
        maker.fill_to(maker.segment_size * 2, 60_000)
        (self.directory / "wal").mkdir()
        maker.write(self.directory / "wal")
        self.check(OF_BOTH | OF_A_DIRECTORY)

    def test_relay(self) -> None:
        """Of a relay, whose directory is empty yet."""
        (self.directory / "wal").mkdir()
        self.check(OF_A_RELAY, "primary_conninfo = 'host=x'")

    def test_limitOfOpenFilesThatMayNotBeRaised(self) -> None:
        """A sandbox may forbid it; the service starts with what it has."""
        self.patch(resource, "getrlimit", lambda _: (1024, 4096))
        self.patch(resource, "setrlimit", refuse)
        self.assertEqual(1024, service._raise_open_file_limit())


def refuse(_: int, limits: tuple[int, int]) -> None:
    """As the system does."""
    raise ValueError("not allowed to raise maximum limit")
