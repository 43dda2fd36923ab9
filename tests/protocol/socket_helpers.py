"""A server on a port of its own under the real reactor; who uses it waits for events, never for time."""

from __future__ import annotations

import socket
import ssl
import tempfile
from functools import cache
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

from protocol_helpers import COPY_BOTH, COPY_OUT, READY, query, startup_packet
from twisted.internet import reactor  # noqa: TID253 (pytest-twisted has installed it)
from twisted.internet.task import deferLater

from walsender.auth import LocalAuthorizer
from walsender.lsn import Geometry
from walsender.sender import WalSenderFactory
from walsender.sender.kernel_consumer import KernelConsumer
from walsender.testing.certificates import Authority
from walsender.testing.source import ScriptedSource
from walsender.tls import ServerTls, TlsFiles, load_tls
from walsender.wire.dialect import FirstDialect, ModernDialect
from walsender.work_threads import WorkThreads

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsender.sender.page_cache import RunInThread

GIB = 1 << 30
SEGMENT = 16 << 20
LEVEL = SEGMENT + 0x300060
DEADLINE_S = 120

# The ways that WAL goes to a client; those of the kernel, the last of which has threads besides.
BY_KERNEL = {"sendfile", "pump"}
WAYS = ["transport", "tls", "sendfile", "pump"]


@cache
def server_tls() -> ServerTls:
    """Return a certificate and key."""
    with tempfile.TemporaryDirectory() as directory:
        certificate, key = Authority(Path(directory)).issue("localhost")
        return load_tls(TlsFiles(str(certificate), str(key)))


class AlwaysPumped(WalSenderFactory):
    """Takes each client for one of many who take much."""

    def _pump_for_many(self) -> RunInThread | None:
        return self._pump

    def consumer(self, transport: Any) -> Any:
        """See `WalSenderFactory`."""
        consumer = super().consumer(transport)
        assert isinstance(consumer, KernelConsumer)
        consumer._worth_a_pump = True
        return consumer


class Listening:
    """A factory on a port of its own."""

    def __init__(self, *, way: str, modern: bool = True, position: int = LEVEL, sparse: bool = False) -> None:
        geometry = Geometry.contiguous(SEGMENT)
        self.source = ScriptedSource(position, geometry=geometry, sparse=sparse)
        dialect = ModernDialect(180000) if modern else FirstDialect(90000, "little")
        self.greeting_end = COPY_BOTH if modern else COPY_OUT
        self.pumps = WorkThreads(reactor, "pump", 2)
        self.pumps.start()
        made = (reactor, self.source, dialect, LocalAuthorizer())
        self.factory = WalSenderFactory(*made, sendfile=way in BY_KERNEL)
        if way == "tls":
            self.factory.tls = server_tls()
        elif way == "pump":
            self.factory = AlwaysPumped(*made, sendfile=True, pump=self.pumps.run)
        self.port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.sockets: list[socket.socket] = []

    @property
    def connections(self) -> set[Any]:
        """The protocols that are connected."""
        return self.factory._connections

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the reactor go round until *condition* holds."""
        deadline = monotonic() + DEADLINE_S
        while not condition():
            assert monotonic() < deadline, f"never: {condition}"
            await deferLater(reactor, 0, bool)

    async def connect(self, start: int, *, receive_buffer: int = 0) -> socket.socket:
        """Return a socket on which a stream from *start* has been asked for, and nothing read behind."""
        client = socket.socket()
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(("127.0.0.1", self.port.getHost().port))
        client.setblocking(False)
        if self.factory.tls is not None:
            client = await self.encrypt(client)
        self.sockets.append(client)
        client.sendall(startup_packet())
        greeting = await self.read(client, lambda data: data.endswith(READY))
        assert greeting.endswith(READY)
        client.sendall(query(f"START_REPLICATION {start >> 32:X}/{start & 0xFFFFFFFF:X}"))
        return client

    @staticmethod
    async def encrypt(client: socket.socket) -> ssl.SSLSocket:
        """Return *client* with TLS on it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["postgresql"])
        encrypted = context.wrap_socket(client, do_handshake_on_connect=False)
        while True:
            try:
                encrypted.do_handshake()
            except ssl.SSLWantReadError:
                await deferLater(reactor, 0, bool)
            else:
                return encrypted

    async def read(self, client: socket.socket, enough: Callable[[bytes], object]) -> bytes:
        """Read until *enough* says so or the stream ends."""
        data = bytearray()
        deadline = monotonic() + DEADLINE_S
        while monotonic() < deadline:
            try:
                piece = client.recv(1 << 20)
            except (BlockingIOError, ssl.SSLWantReadError):
                await deferLater(reactor, 0, bool)
                continue
            if not piece:
                break
            data += piece
            if enough(data):
                break
        return bytes(data)

    def stalled(self) -> bool:
        """Whether every stream waits for its client, and only for it."""
        streams = [connection._stream for connection in self.connections]
        return bool(streams) and all(stream is not None and self.waits(stream) for stream in streams)

    @staticmethod
    def waits(stream: Any) -> bool:
        """Whether one stream does."""
        consumer = stream._consumer
        if isinstance(consumer, KernelConsumer):
            return consumer._watching and bool(consumer._unsent()) and not consumer._warming
        return consumer._transport_full and not consumer._reading

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """End everything."""
        for client in self.sockets:
            client.close()
        await self.port.stopListening()
        self.factory.abort()
        await self.factory.shut_down()
        self.pumps.stop()
        self.source.close()
