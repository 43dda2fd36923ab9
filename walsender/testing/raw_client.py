"""
A replication client of a hundred lines over a blocking socket, for what libpq's clients do not show.

It knows framing and nothing else, and shares no code with the server, so that
the two cannot be wrong in the same way.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final, NamedTuple, Self

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

PROTOCOL_3_0: Final = 3 << 16


class Message(NamedTuple):
    """One message from the server: its type byte, and what follows the length."""

    kind: bytes
    body: bytes

    def fields(self) -> dict[str, str]:
        """Return an ErrorResponse's or NoticeResponse's fields by their letters (``C`` is the SQLSTATE)."""
        parts = self.body.split(b"\0")
        return {part[:1].decode(): part[1:].decode(errors="replace") for part in parts if part}

    def values(self) -> list[str | None]:
        """Return the columns of a DataRow."""
        (count,) = struct.unpack_from("!h", self.body)
        values: list[str | None] = []
        at = 2
        for _ in range(count):
            (length,) = struct.unpack_from("!i", self.body, at)
            at += 4
            values.append(None if length < 0 else self.body[at : at + length].decode())
            at += max(length, 0)
        return values


def startup_packet(version: int = PROTOCOL_3_0, **parameters: str) -> bytes:
    """Return a StartupMessage, by default one that asks for physical replication."""
    pairs = {"user": "postgres", "replication": "true", **parameters}
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in pairs.items()) + b"\0"
    return struct.pack("!II", len(body) + 8, version) + body


class RawConnection:
    """
    A connection on which nothing has been said yet.

    :ivar socket: the blocking socket, for whoever wants to misbehave.
    """

    def __init__(self, host: str, port: int, *, timeout_s: float = 30) -> None:
        self.socket = socket.create_connection((host, port), timeout=timeout_s)
        self._file = self.socket.makefile("rb")

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Go on under TLS; the server has said that it will, or must guess it from the first byte."""
        self._file.close()
        self.socket = context.wrap_socket(self.socket)
        self._file = self.socket.makefile("rb")

    def send(self, kind: bytes, body: bytes = b"") -> None:
        """Send one message."""
        self.socket.sendall(kind + struct.pack("!I", len(body) + 4) + body)

    def read_bytes(self, count: int) -> bytes:
        """Return so many bytes that are no message, or fewer at the end of the stream."""
        return self._file.read(count)

    def query(self, text: str) -> list[Message]:
        """Send a command and return its whole answer, ReadyForQuery included."""
        self.send(b"Q", text.encode() + b"\0")
        return self.until(b"Z")

    def read(self) -> Message | None:
        """Return the next message, or ``None`` at the end of the stream."""
        header = self._file.read(5)
        if len(header) < 5:  # noqa: PLR2004 (type and length)
            return None
        (length,) = struct.unpack("!I", header[1:])
        return Message(header[:1], self._file.read(length - 4))

    def until(self, *kinds: bytes) -> list[Message]:
        """Return all messages up to the first of one of *kinds*, or to the end of the stream."""
        messages = []
        while (message := self.read()) is not None:
            messages.append(message)
            if message.kind in kinds:
                break
        return messages

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RawClient(RawConnection):
    """A connection that has said what it wants and sent no command yet."""

    def __init__(self, host: str, port: int, *, timeout_s: float = 30, **parameters: str) -> None:
        super().__init__(host, port, timeout_s=timeout_s)
        self.socket.sendall(startup_packet(PROTOCOL_3_0, **parameters))

    def ready(self) -> Self:
        """
        Read up to the first ReadyForQuery.

        :raises ConnectionError: the server sends an error or ends the connection.
        """
        answer = self.until(b"Z", b"E")
        if not answer or answer[-1].kind != b"Z":
            self.close()
            reason = answer[-1].fields().get("M") if answer else "no answer"
            raise ConnectionError(f"could not start replication connection: {reason}")
        return self


def lets_in(host: str, port: int) -> bool:
    """Return whether a server lets clients in, which a relay does when it has its first WAL."""
    try:
        with RawClient(host, port).ready():
            return True
    except ConnectionError:
        return False
