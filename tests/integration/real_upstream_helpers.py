"""What tests of a connection to a real upstream share: a receiver that remembers, a server with TLS."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from zope.interface import implementer

from walsender.lsn import Geometry
from walsender.upstream import ICopyReceiver, UpstreamError
from walsender.wal.segment import segment_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from walsender.upstream import IUpstreamSession, Row

TLS: Final = Path(__file__).with_name("tls")
_SSL_REQUEST: Final = bytes.fromhex("00000008 04d2162f")
_HEADER: Final = 25  # of XLogData: 'w', start, end of WAL, time


@implementer(ICopyReceiver)
class Recorder:
    """
    Remembers what a stream brought.

    :ivar wal: all of it, which must come without gap or overlap from *start* on.
    :ivar events: the calls other than messages.
    :ivar on_message: called with each message.
    """

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.wal = bytearray()
        self.keepalives = 0
        self.events: list[Any] = []
        self.on_message: Callable[[bytes], None] = lambda body: None
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    @property
    def position(self) -> int:
        """Up to where WAL has come."""
        return self.start + len(self.wal)

    def wal_message_received(self, body: bytes | memoryview) -> None:
        """See `ICopyReceiver`."""
        assert memoryview(body).readonly, "it stays as it is"
        if body[:1] == b"w":
            assert int.from_bytes(body[1:9], "big") == self.position
            self.wal += body[_HEADER:]
        else:
            self.keepalives += 1
        self.on_message(bytes(body))

    def batch_received(self) -> None:
        """See `ICopyReceiver`."""
        self._look()

    def stream_ended(self, rows: Sequence[Row]) -> None:
        """See `ICopyReceiver`."""
        self.events.append(("ended", rows))
        self._look()

    def session_lost(self, error: UpstreamError) -> None:
        """See `ICopyReceiver`."""
        self.events.append(("lost", error))
        self._look()

    def until(self, condition: Callable[[], bool], reactor: Any) -> Deferred[None]:
        """Return a Deferred that fires when *condition* holds after some call; it fails after a minute."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append((condition, waiting))
        waiting.addTimeout(60, reactor)
        self._look()
        return waiting

    def _look(self) -> None:
        for entry in [entry for entry in self._waiting if entry[0]()]:
            self._waiting.remove(entry)
            entry[1].callback(None)


def wal_of(directory: Path, start: int, end: int) -> bytes:
    """Return what the files of timeline 1 in *directory* hold from position *start* to *end*."""
    geometry = Geometry.contiguous()
    wal = bytearray()
    while start < end:
        number = geometry.segment_number(start)
        with (directory / segment_name(1, number, geometry)).open("rb") as file:
            file.seek(start - geometry.segment_start(number))
            wal += file.read(end - start)
        start = geometry.segment_start(number + 1)
    return bytes(wal)


def open_sockets() -> set[str]:
    """Return the sockets that this process has open, duplicates included once for each."""
    found = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 (names are wanted)
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
            if target.startswith("socket:"):
                found.add(f"{name} {target}")
    return found


async def closing(session: IUpstreamSession, work: Any) -> Any:
    """Await *work*, and close *session* however that ends."""
    try:
        return await work
    finally:
        session.close()


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """Give a port where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextlib.contextmanager
def tls_in_front_of(port: int) -> Iterator[int]:
    """
    Give a port where PostgreSQL is spoken under TLS, as the server at *port* speaks it without.

    PostgreSQL itself is behind it; only the encryption is ours, since the servers that tests
    find everywhere are built without.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.pem")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", port)) as server:
            if client.recv(len(_SSL_REQUEST), socket.MSG_WAITALL) != _SSL_REQUEST:
                return
            client.sendall(b"S")
            with context.wrap_socket(client, server_side=True) as encrypted:
                threads = [
                    threading.Thread(target=_copy, args=ends)
                    for ends in ((encrypted, server), (server, encrypted))
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                serving.append(threading.Thread(target=serve, args=(client,)))
                serving[-1].start()

    serving: list[threading.Thread] = []
    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in (accepting, *serving):
            thread.join(60)


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copy until one end is closed, then close both for the other direction."""
    with contextlib.suppress(OSError, ValueError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
