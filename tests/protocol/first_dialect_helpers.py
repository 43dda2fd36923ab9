"""What the tests of the first dialect's stream share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol_helpers import (
    Client,
    ProtocolTestCase,
    query,
)

from walsender.sender.states import FIRST, State

if TYPE_CHECKING:
    from protocol_helpers import Server

    from walsender.testing.wal_maker import WalMaker


BEFORE_STREAM = [State.STARTUP, State.AUTHENTICATION, State.COMMAND]


def header(length: str, log_id_and_offset: str) -> bytes:
    """Return a header: CopyData's type, length, XLogData's type, position as it stands on the wire."""
    return b"d" + bytes.fromhex(length) + b"w" + bytes.fromhex(log_id_and_offset)


class StreamTestCase(ProtocolTestCase):
    """Streams from WAL in a real directory."""

    def stream(self, maker: WalMaker, start: str) -> tuple[Server, Client]:
        """Return a server of *maker*'s WAL and a client that has sent START_REPLICATION."""
        self.path = self.directory()
        server = self.first_server(maker, self.path)
        client = server.started()
        client.send(query(f"START_REPLICATION {start}"))
        return server, client

    def assertEnds(self, server: Server, client: Client, *states: State) -> None:
        """Check that the connection is closed and freed, and its way through the table."""
        self.assertTrue(client.is_closed)
        self.assertEqual(0, len(server.factory.slot_table))
        self.assertEqual(BEFORE_STREAM + list(states), client.states)
        self.assertLegal(FIRST, client.states)
