"""What the tests of the modern greeting share."""

from __future__ import annotations

from protocol_helpers import (
    Client,
    ProtocolTestCase,
    Server,
    error_fields,
    kinds,
)

from walsender.sender.states import State
from walsender.wire.dialect import ModernDialect

AUTHENTICATION_OK = bytes.fromhex("52 00000008 00000000")


class StartupTestCase(ProtocolTestCase):
    """Connects to a server with some WAL."""

    def server(self, version: int = 180000, **options: object) -> Server:
        """Return a server."""
        return Server(self.scripted_source(0x300000), ModernDialect(version), **options)

    def assertRefused(self, client: Client, answer: bytes, sqlstate: str, text: str) -> None:
        """Check that *answer* ends with a fatal error and the connection with it."""
        fields = error_fields(answer)
        self.assertEqual(("FATAL", "FATAL", sqlstate, text), tuple(fields[letter] for letter in "SVCM"))
        self.assertEqual(b"E", kinds(answer)[-1:])
        self.assertTrue(client.is_closed)
        self.assertIs(State.CLOSED, client.states[-1])
