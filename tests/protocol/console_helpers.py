"""What the tests of the console share: a server that has one, and clients that speak SQL."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from protocol_helpers import LOCAL, Client, ProtocolTestCase, Server, message, parse, query
from twisted.internet.threads import deferToThreadPool

from walsender.console import Console, ServerView

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from walsender.wire.extended import ExtendedMessage

SYNC = message(b"S")


class ConsoleServer(Server):
    """
    A server with a console.

    :ivar reloads: how often it was told to read its configuration again.
    """

    def __init__(self, source: Any, **options: Any) -> None:
        super().__init__(source, **options)
        self.reloads = 0
        view = ServerView(source, self.factory.slot_table, self.factory.slots, self.reactor.seconds())
        self.factory.console = Console(
            view, self.factory, self._run_in_thread, self.reactor.seconds, self._reload
        )

    def _run_in_thread(self, function: Any, *arguments: Any) -> Deferred[Any]:
        reactor: Any = self.reactor
        return deferToThreadPool(reactor, reactor.getThreadPool(), function, *arguments)

    def _reload(self) -> None:
        self.reloads += 1

    def console(self, **parameters: str) -> Client:
        """Connect a client that wants SQL."""
        client = self.connect(LOCAL)
        client.start(replication="false", database="walsender", **parameters)
        return client


class ConsoleTestCase(ProtocolTestCase):
    """Gives a server with some WAL, and a client."""

    def setUp(self) -> None:
        """Start."""
        self.server = ConsoleServer(self.scripted_source(0x300000))
        self.client = self.server.console()

    def ask(self, text: str, client: Client | None = None) -> list[str]:
        """Return the answer to a query, in words."""
        return summary((client or self.client).ask(text))

    def say(self, *messages: ExtendedMessage, client: Client | None = None) -> list[str]:
        """Return the answers to messages of the extended protocol and a Sync, in words."""
        one = client or self.client
        one.send(b"".join(each.encode() for each in messages) + SYNC)
        return summary(one.receive())


_SIMPLE = {b"1": "parsed", b"2": "bound", b"3": "closed", b"n": "no data", b"s": "suspended", b"I": "empty"}


def summary(data: bytes) -> list[str]:
    """Return messages in words."""
    return [_word(kind, body) for kind, body in parse(data)]


def _word(kind: bytes, body: bytes) -> str:
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if kind == b"Z":
        return f"ready {body.decode()}"
    if kind == b"C":
        return body[:-1].decode()
    if kind == b"T":
        return f"columns {' '.join(_names(body))}"
    if kind == b"D":
        return f"row {' | '.join('NULL' if one is None else one.decode() for one in _values(body))}"
    if kind == b"t":
        count = struct.unpack(">H", body[:2])[0]
        return f"types {' '.join(map(str, struct.unpack(f'>{count}I', body[2:])))}"
    if kind == b"S":
        name, value, _ = body.split(b"\0")
        return f"{name.decode()} is {value.decode()}"
    fields = {part[:1].decode(): part[1:].decode() for part in body.split(b"\0") if part}
    return f"{fields['S']} {fields['C']} {fields['M']}{' at ' + fields['P'] if 'P' in fields else ''}"


def _names(body: bytes) -> list[str]:
    names, place = [], 2
    for _ in range(struct.unpack(">H", body[:2])[0]):
        end = body.index(b"\0", place)
        names.append(body[place:end].decode())
        place = end + 19
    return names


def _values(body: bytes) -> list[bytes | None]:
    values: list[bytes | None] = []
    place = 2
    for _ in range(struct.unpack(">H", body[:2])[0]):
        (length,) = struct.unpack(">i", body[place : place + 4])
        place += 4
        values.append(None if length < 0 else body[place : place + length])
        place += max(length, 0)
    return values


__all__ = ["SYNC", "ConsoleServer", "ConsoleTestCase", "query", "summary"]
