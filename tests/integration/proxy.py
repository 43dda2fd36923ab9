"""A TCP proxy on this machine that can be made to misbehave."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable

_PIECE: Final = 1 << 16


class Proxy:
    """
    Passes connections to 127.0.0.1:*target* on.

    :ivar port: where it listens.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ends: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._flows = threading.Event()
        self._flows.set()
        self._cut_after: int | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._flows.set()
        self._drop()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def stall(self) -> None:
        """Keep the connections and pass nothing on."""
        self._flows.clear()

    def reset(self) -> None:
        """End all connections, with a reset to whoever still sends."""
        self._drop(struct.pack("ii", 1, 0))

    def truncate(self) -> None:
        """Pass on a part of what comes next, and end the connection there."""
        self._cut_after = random.randrange(1, 100)

    def heal(self) -> None:
        """Behave; what was held up is lost with its connection, as after a firewall's time-out."""
        if not self._flows.is_set():
            self._drop()
        self._cut_after = None
        self._flows.set()

    def _drop(self, linger: bytes = b"") -> None:
        with self._lock:
            for end in self._ends:
                with contextlib.suppress(OSError):
                    if linger:
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    end.shutdown(socket.SHUT_RDWR)  # whoever waits there wakes up, and closes it

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._start(self._serve, client)

    def _start(self, target: Callable[..., None], *args: socket.socket) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _serve(self, client: socket.socket) -> None:
        target = ("127.0.0.1", self._target)
        with contextlib.suppress(OSError), client, socket.create_connection(target) as server:
            with self._lock:
                self._ends |= {client, server}
            back = self._start(self._pump, server, client)
            self._pump(client, server)
            back.join()
            with self._lock:
                self._ends -= {client, server}

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                self._flows.wait()
                if self._cut_after is not None:
                    sink.sendall(data[: self._cut_after])
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
