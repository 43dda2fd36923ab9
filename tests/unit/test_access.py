"""The files that say who may come in: at the start and read again."""

from __future__ import annotations

import shutil
import tempfile
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from walsender.access import Access
from walsender.auth import ConnectionRequest, IAuthenticationClient, load_hba, load_userlist
from walsender.errors import ConfigurationError
from walsender.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsender.wire import AuthenticationRequest, MessageRules

ETC = Path(__file__).parents[2] / "etc"
STRANGER = ConnectionRequest(ip_address("192.0.2.1"), "a")


def at_once(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    """Call *function* instead of a thread."""
    return succeed(function(*arguments))


def fail(*_: object) -> Deferred[Any]:
    """Use no thread."""
    raise AssertionError("not in this pool")


@implementer(IAuthenticationClient)
class Answering:
    """A client that has one answer."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def send(self, message: AuthenticationRequest) -> None:
        """See `IAuthenticationClient`."""

    async def receive(self, rules: MessageRules) -> bytes:
        """See `IAuthenticationClient`."""
        return self._answer


class AccessTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a directory for the files."""
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)

    def write(self, **files: str) -> Settings:
        """Write the files that are given, and return settings that name all that are there."""
        for name, content in files.items():
            path = self.directory / name
            path.write_text(content)
            path.chmod(0o600)
        return Settings.load(
            [("wal-directory", "/wal"), *((path.name, str(path)) for path in self.directory.iterdir())]
        )

    def access(self, **files: str) -> Access:
        """Return what the files make of it."""
        return Access(self.write(**files), at_once, at_once)

    def has_password(self, access: Access, user: str) -> bool:
        """Return whether something is stored for *user*."""
        return access.authorizer.passwords.find(user)[1]

    def logged(self, function: Callable[[], object]) -> list[tuple[LogLevel, str]]:
        """Return what *function* logs."""
        with capturedLogs() as events:
            function()
        directory = f"{self.directory}/"
        return [(event["log_level"], formatEvent(event).replace(directory, "")) for event in events]

    def test_withoutFiles(self) -> None:
        """Nothing given, this machine comes in and nobody has a password."""
        access = self.access()
        self.assertIsNone(access.authorizer.rules.find(STRANGER))
        self.assertIsNotNone(access.authorizer.rules.find(ConnectionRequest(None, "a")))
        self.assertFalse(self.has_password(access, "a"))

    def test_files(self) -> None:
        """Each file has its effect."""
        access = self.access(
            hba_file="host replication a 192.0.2.0/24 md5", ident_file="m x a", auth_file='"a" "secret"'
        )
        self.assertIsNotNone(access.authorizer.rules.find(STRANGER))
        self.assertTrue(access.authorizer.maps.permits("m", "x", "a"))
        self.assertTrue(self.has_password(access, "a"))

    def test_wrongAtTheStart(self) -> None:
        """One thing wrong is one line; several are logged, and the line says how many there are."""
        settings = self.write(hba_file="host x")
        events = []

        def start() -> None:
            error = self.assertRaises(ConfigurationError, Access, settings, at_once, at_once)
            events.append(error.message.replace(f"{self.directory}/", ""))

        self.assertEqual(self.logged(start), [])
        settings = self.write(hba_file="local all all trust\nhost\nx", ident_file="m", auth_file="")
        where = '(parameter "hba_file" from command line option --hba-file)'
        first = 'end-of-line before database specification, line 2 of configuration file "hba_file"'
        self.assertEqual(
            self.logged(start),
            [
                (LogLevel.critical, first),
                (LogLevel.critical, 'invalid connection type "x", line 3 of configuration file "hba_file"'),
                (
                    LogLevel.critical,
                    'missing entry at end of line, line 1 of configuration file "ident_file"',
                ),
            ],
        )
        self.assertEqual(
            events,
            [
                (f'end-of-line before role specification, line 1 of configuration file "hba_file" {where}'),
                f"{first} (and 2 more) {where}",
            ],
        )

    def test_warnings(self) -> None:
        """What is doubtful is told at the start and on each reload."""
        settings = self.write(hba_file="hostssl all all all md5", auth_file='"a" "secret"')
        (self.directory / "auth_file").chmod(0o644)
        made: list[Access] = []
        hostssl = (
            "hostssl record cannot match because SSL is disabled, "
            'line 1 of configuration file "hba_file". Set ssl = on.'
        )
        for function in (
            lambda: made.append(Access(settings, at_once, at_once)),
            lambda: made[0].reload(settings),
        ):
            warned = self.logged(function)
            self.assertEqual([level for level, _ in warned], [LogLevel.warn] * 2)
            self.assertEqual(warned[0][1], hostssl)
            self.assertIn('auth_file "auth_file" has world access', warned[1][1])
            self.assertNotIn("secret", str(warned))

    def test_reload(self) -> None:
        """Good files are taken over, also under other names and when one is no longer given."""
        access = self.access(hba_file="host all all all md5", ident_file="m x a", auth_file='"a" "1"')
        authorizer = access.authorizer
        settings = self.write(
            hba_file="host replication all all md5", ident_file="m x b", auth_file='"b" "2"'
        )
        self.successResultOf(access.reload(settings))
        self.assertIs(access.authorizer, authorizer)
        self.assertIsNotNone(authorizer.rules.find(STRANGER))
        self.assertEqual([authorizer.maps.permits("m", "x", role) for role in "ab"], [False, True])
        self.assertEqual([self.has_password(access, user) for user in "ab"], [False, True])
        (self.directory / "hba_file").unlink()
        self.successResultOf(access.reload(self.write()))
        self.assertIsNone(authorizer.rules.find(STRANGER))

    def test_reloadOfWrongFiles(self) -> None:
        """A wrong file leaves what was read from it in force, and every line is told; others are read."""
        access = self.access(hba_file="host replication all all md5", ident_file="m x a", auth_file='"a" "1"')
        rules = access.authorizer.rules
        settings = self.write(
            hba_file="host\nhost x\nhost all all all trust", ident_file="m x b", auth_file='"b'
        )
        logged = self.logged(lambda: self.successResultOf(access.reload(settings)))
        self.assertEqual({level for level, _ in logged}, {LogLevel.error})
        self.assertEqual(
            [text for _, text in logged],
            [
                'end-of-line before database specification, line 1 of configuration file "hba_file"',
                'end-of-line before role specification, line 2 of configuration file "hba_file"',
                "hba_file was not reloaded",
                (
                    'invalid line, line 1 of configuration file "auth_file". '
                    'Write "user" "password", both in double quotes.'
                ),
                "auth_file was not reloaded",
            ],
        )
        self.assertIs(access.authorizer.rules, rules)
        self.assertTrue(access.authorizer.maps.permits("m", "x", "b"))
        self.assertEqual([self.has_password(access, user) for user in "ab"], [True, False])

    def test_strangers(self) -> None:
        """What strangers ask for is done in threads of its own; files are read in others."""
        strangers: list[object] = []

        def for_strangers(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
            strangers.append(function)
            return at_once(function, *arguments)

        settings = self.write(hba_file="host replication all all password", auth_file='"a" "secret"')
        access = Access(settings, fail, for_strangers)
        client = Answering(b"secret\0")
        self.successResultOf(Deferred.fromCoroutine(access.authorizer.authenticate(STRANGER, client)))
        self.assertEqual(1, len(strangers))
        self.failureResultOf(access.reload(settings), AssertionError)

    def test_twoReloads(self) -> None:
        """Of two reloads at once the later counts, whichever thread is done first."""
        waiting: list[Deferred[Any]] = []
        results = []

        def later(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
            results.append(function(*arguments))
            waiting.append(Deferred())
            return waiting[-1]

        access = Access(self.write(hba_file="local all all trust"), later, at_once)
        for content in ("host replication all all trust", "local all all md5"):
            access.reload(self.write(hba_file=content))
        waiting[1].callback(results[1])
        self.assertIsNone(access.authorizer.rules.find(STRANGER))
        waiting[0].callback(results[0])
        self.assertIsNone(access.authorizer.rules.find(STRANGER))


class SamplesTests(SynchronousTestCase):
    def test_hba(self) -> None:
        """The sample's rules are rules, also those that are commented out."""
        self.assertEqual(len(load_hba(str(ETC / "pg_hba.conf")).lines), 2)
        with tempfile.NamedTemporaryFile("w") as file:
            file.write((ETC / "pg_hba.conf").read_text().replace("\n#hostssl", "\nhostssl"))
            file.flush()
            self.assertEqual(len(load_hba(file.name).lines), 3)

    def test_userlist(self) -> None:
        """The sample has no user, and its second example is one."""
        self.assertIsNone(load_userlist(str(ETC / "userlist.txt")).secret("barman"))
        with tempfile.NamedTemporaryFile("w") as file:
            file.write((ETC / "userlist.txt").read_text().replace('\n;"barman"', '\n"barman"'))
            file.flush()
            self.assertIsNotNone(load_userlist(file.name).secret("barman"))
