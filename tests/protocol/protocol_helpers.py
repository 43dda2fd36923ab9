"""What the tests of this folder share: a server without a network, and a client that says bytes."""

from __future__ import annotations

import struct
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from walsender.auth import LocalAuthorizer
from walsender.lsn import LSN
from walsender.sender import WalSender, WalSenderFactory
from walsender.sender.page_cache import PageCache
from walsender.sender.transport_consumer import TransportConsumer
from walsender.source import DirectorySource
from walsender.testing.memory import ClockReactor
from walsender.testing.raw_client import startup_packet
from walsender.testing.source import ScriptedSource
from walsender.testing.transport import ThrottledTransport
from walsender.wal import REAL_FILES
from walsender.wire.dialect import Dialect, FirstDialect, ModernDialect

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress

    from walsender.sender.states import State, Transitions
    from walsender.testing.wal_maker import WalMaker

LOCAL = IPv4Address("TCP", "127.0.0.1", 40000)


def message(kind: bytes, body: bytes = b"") -> bytes:
    """Return a typed message: kind, Int32 length of itself and the body, body."""
    return kind + struct.pack(">I", len(body) + 4) + body


def copy_data(body: bytes) -> bytes:
    """Return a CopyData."""
    return message(b"d", body)


def query(text: str) -> bytes:
    """Return a Query."""
    return message(b"Q", text.encode() + b"\0")


def status(write: int, flush: int = 0, replay: int = 0, *, reply: bool = False) -> bytes:
    """Return a CopyData with a standby's status update."""
    return copy_data(b"r" + struct.pack(">QQQqB", write, flush, replay, 0, reply))


def error_response(**fields: str) -> bytes:
    """Return an ErrorResponse with *fields* by their letters, in the order given."""
    body = b"".join(f"{letter}{text}\0".encode() for letter, text in fields.items())
    return message(b"E", body + b"\0")


READY = bytes.fromhex("5a 00000005 49")  # ReadyForQuery, idle
COPY_0 = bytes.fromhex("43 0000000b 434f5059203000")  # CommandComplete "COPY 0"
COPY_DONE = bytes.fromhex("63 00000004")
TERMINATE = bytes.fromhex("58 00000004")
COPY_BOTH = bytes.fromhex("57 00000007 00 0000")  # format 0, no columns
COPY_OUT = bytes.fromhex("48 00000007 00 0000")


def parse(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return the messages in *data*, which ends with a whole one, as kind and body."""
    messages = []
    while data:
        (length,) = struct.unpack(">I", data[1:5])
        assert len(data) > length, f"cut off after {len(data)} of {length + 1} bytes"
        messages.append((data[:1], data[5 : 1 + length]))
        data = data[1 + length :]
    return messages


def kinds(data: bytes) -> bytes:
    """Return the type bytes of the messages in *data*."""
    return b"".join(kind for kind, _ in parse(data))


def error_fields(data: bytes) -> dict[str, str]:
    """Return the fields of the one ErrorResponse in *data*."""
    (body,) = (body for kind, body in parse(data) if kind == b"E")
    return {part[:1].decode(): part[1:].decode() for part in body.split(b"\0") if part}


def wal_messages(data: bytes) -> list[tuple[int, int, bytes]]:
    """Return start, server's end and WAL of each XLogData among the modern dialect's messages in *data*."""
    found = []
    for kind, body in parse(data):
        if kind == b"d" and body[:1] == b"w":
            start, end, _ = struct.unpack(">QQq", body[1:25])
            found.append((start, end, body[25:]))
    return found


def keepalives(data: bytes) -> list[tuple[int, int]]:
    """Return position and reply-requested flag of each keepalive in *data*."""
    return [
        (struct.unpack(">Q", body[1:9])[0], body[17])
        for kind, body in parse(data)
        if kind == b"d" and body[:1] == b"k"
    ]


def run_now(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
    """`deferToThread` without threads."""
    return maybeDeferred(function, *args, **kwargs)


class RecordedWalSender(WalSender):
    """
    Remembers its states.

    :ivar states: each state that was entered, without repetition.
    """

    @property
    def state(self) -> State:  # type: ignore[override]
        """See `WalSender`."""
        return self.states[-1]

    @state.setter
    def state(self, state: State) -> None:
        states: list[State] = self.__dict__.setdefault("states", [])
        if not states or states[-1] is not state:
            states.append(state)


class ColdPageCache(PageCache):
    """Says that nothing is in the page cache until it has been read there."""

    def holds(self, piece: Any) -> bool:
        """See `PageCache`."""
        return self._warm_segment is piece.segment and self._warm_start <= piece.offset < self._warm_end


class RecordedFactory(WalSenderFactory):
    """
    Makes `RecordedWalSender` protocols.

    :ivar cold: WAL is never in the page cache.
    """

    cold = False

    def buildProtocol(self, addr: Any) -> RecordedWalSender:
        """See `WalSenderFactory`."""
        return RecordedWalSender(self)

    def consumer(self, transport: Any) -> Any:
        """See `WalSenderFactory`."""
        if self.cold:
            return TransportConsumer(transport, ColdPageCache(self._run_in_thread))
        return super().consumer(transport)


class Client:
    """
    One connection, from the client's end.

    :ivar transport: the server's.
    """

    def __init__(self, server: Server, peer: IAddress) -> None:
        self.protocol = server.factory.buildProtocol(peer)
        self.transport = ThrottledTransport(self.protocol, peer)
        self.protocol.makeConnection(self.transport)

    @property
    def states(self) -> list[State]:
        """All states so far."""
        return self.protocol.__dict__["states"]

    @property
    def entry(self) -> Any:
        """Its entry in the slot table."""
        return self.protocol.session.entry

    def send(self, *data: bytes) -> None:
        """Send bytes; each argument arrives by itself."""
        for piece in data:
            self.transport.deliver(piece)

    def receive(self) -> bytes:
        """Read until nothing moves, and return what came since the last time."""
        self.transport.drain_all()
        received = bytes(self.transport.received)
        self.transport.clear()
        return received

    def start(self, **parameters: str) -> bytes:
        """Send a start-up packet and return the answer."""
        self.send(startup_packet(**parameters))
        return self.receive()

    def ask(self, text: str) -> bytes:
        """Send a query and return the answer."""
        self.send(query(text))
        return self.receive()

    @property
    def is_closed(self) -> bool:
        """Whether the server has ended the connection."""
        return self.transport.disconnected


class Server:
    """
    A factory on a clock.

    :param options: of `WalSenderFactory`.
    """

    def __init__(
        self,
        source: Any,
        dialect: Dialect | None = None,
        *,
        reactor: ClockReactor | None = None,
        authorizer: Any = None,
        **options: Any,
    ) -> None:
        self.reactor = reactor or ClockReactor()
        self.source = source
        self.factory = RecordedFactory(
            self.reactor,  # type: ignore[arg-type]
            source,
            dialect or ModernDialect(180000),
            authorizer or LocalAuthorizer(),
            **options,
        )

    def connect(self, peer: IAddress = LOCAL) -> Client:
        """Connect a client."""
        return Client(self, peer)

    def started(self, **parameters: str) -> Client:
        """Connect a client that has been greeted."""
        client = self.connect()
        client.start(**parameters)
        return client

    def streaming(self, start: int, timeline: int | None = None, **parameters: str) -> Client:
        """Connect a client that has asked for WAL from *start* and has read nothing of the answer."""
        client = self.started(**parameters)
        suffix = "" if timeline is None else f" TIMELINE {timeline}"
        client.send(query(f"START_REPLICATION {LSN(start)}{suffix}"))
        return client


class ProtocolTestCase(SynchronousTestCase):
    """Makes sources and servers that are cleaned up."""

    def scripted_source(self, position: int, **options: Any) -> ScriptedSource:
        """Return a `ScriptedSource`."""
        source = ScriptedSource(position, **options)
        self.addCleanup(source.close)
        return source

    def directory(self) -> Path:
        """Return a new directory."""
        directory = tempfile.TemporaryDirectory(prefix="walsender-test-")
        self.addCleanup(directory.cleanup)
        return Path(directory.name)

    def directory_source(
        self, maker: WalMaker | None, reactor: ClockReactor, path: Path | None = None
    ) -> DirectorySource:
        """Return a started `DirectorySource` over what *maker* has written."""
        path = path or self.directory()
        if maker is not None:
            maker.write(path)
        source = DirectorySource(reactor, run_now, REAL_FILES, str(path))
        source.start()
        self.addCleanup(source.stop)
        return source

    def first_server(self, maker: WalMaker, path: Path | None = None, **options: Any) -> Server:
        """Return a server of the first dialect over what *maker* has written."""
        reactor = ClockReactor()
        source = self.directory_source(maker, reactor, path)
        return Server(
            source, FirstDialect(source.server_version, source.byte_order), reactor=reactor, **options
        )

    def assertLegal(self, transitions: Transitions, states: list[State]) -> None:
        """Check that each step of *states* stands in the table."""
        for before, after in pairwise(states):
            self.assertIn(after, transitions[before].values(), f"{before.name} to {after.name}")
