"""
Clients that only want to be a burden: ``python flood.py PORT SILENT SLOW GARBAGE``.

* SILENT connections say nothing;
* SLOW ones send a byte a second of a packet that begins well;
* GARBAGE ones send what is no packet, as much as they can.

Whoever is cut off comes back, the first two kinds a second later, the last at once.  They come from
as many addresses of 127.0.0.0/8 as ``--addresses`` says.  Ends with standard input, and prints
what happened as JSON.
"""

from __future__ import annotations

import argparse
import errno
import heapq
import json
import os
import random
import resource
import selectors
import socket
import struct
import sys
import time
from collections import Counter
from typing import Final

_SLOW: Final = struct.pack("!II", 9000, 3 << 16) + b"user\0a\0" + b"application_name\0" + b"x" * 9000
_CODES: Final = (errno.EINPROGRESS, errno.EAGAIN, 0)


class Flood:
    """
    All of them, in one thread.

    :ivar counts: connections, ends, bytes.
    """

    def __init__(self, port: int, addresses: int) -> None:
        self._port = port
        self._addresses = addresses
        self._selector = selectors.DefaultSelector()
        self._due: list[tuple[float, int, str, socket.socket | None]] = []
        self._number = 0
        self._sent: dict[socket.socket, int] = {}
        self._random = random.Random(1)
        self._garbage = self._random.randbytes(16384)
        self.counts: Counter[str] = Counter()

    def later(self, seconds: float, kind: str, connection: socket.socket | None = None) -> None:
        """Let somebody come, or say the next byte, after so many seconds."""
        self._number += 1
        heapq.heappush(self._due, (time.monotonic() + seconds, self._number, kind, connection))

    def run(self) -> None:
        """Go on until standard input ends."""
        os.set_blocking(0, False)
        self._selector.register(0, selectors.EVENT_READ, None)
        while True:
            wait = self._due[0][0] - time.monotonic() if self._due else 1.0
            for key, events in self._selector.select(max(0.0, min(wait, 1.0))):
                if key.data is None:
                    return
                self._happened(key.fileobj, key.data, events)  # type: ignore[arg-type]
            while self._due and self._due[0][0] <= time.monotonic():
                _, _, kind, connection = heapq.heappop(self._due)
                if connection is None:
                    self._connect(kind)
                elif connection.fileno() >= 0:
                    self._say(connection, kind)

    @property
    def held(self) -> int:
        """How many connections the server has not ended."""
        return len(self._selector.get_map()) - 1

    def _connect(self, kind: str) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        connection.bind((f"127.0.0.{2 + self.counts['tried'] % self._addresses}", 0))
        self.counts["tried"] += 1
        if connection.connect_ex(("127.0.0.1", self._port)) not in _CODES:
            connection.close()
            self.later(1, kind)
            return
        self._sent[connection] = 0
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if kind == "garbage" else 0)
        self._selector.register(connection, events, kind)
        if kind == "slow":
            self.later(self._random.random(), kind, connection)

    def _happened(self, connection: socket.socket, kind: str, events: int) -> None:
        if events & selectors.EVENT_READ:
            try:
                gone = not connection.recv(65536)
            except BlockingIOError:
                gone = False
            except OSError:
                gone = True
            if gone:
                self._gone(connection, kind)
                return
        if events & selectors.EVENT_WRITE:
            self._say(connection, kind)

    def _say(self, connection: socket.socket, kind: str) -> None:
        sent = self._sent[connection]
        data = self._garbage if kind == "garbage" else _SLOW[sent : sent + 1]
        try:
            count = connection.send(data)
        except BlockingIOError:
            count = 0
        except OSError:
            self._gone(connection, kind)
            return
        self._sent[connection] += count
        self.counts["bytes"] += count
        if kind == "slow":
            self.later(1, kind, connection)

    def _gone(self, connection: socket.socket, kind: str) -> None:
        self.counts[f"{kind} ended"] += 1
        self._selector.unregister(connection)
        del self._sent[connection]
        connection.close()
        if kind == "garbage":
            self._connect(kind)
        else:
            self.later(1, kind)


def main() -> None:
    """Read the command line and flood."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    for kind in ("silent", "slow", "garbage"):
        parser.add_argument(kind, type=int)
    parser.add_argument("--addresses", type=int, default=1)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    flood = Flood(options.port, options.addresses)
    for kind in ("silent", "slow", "garbage"):
        for number in range(getattr(options, kind)):
            flood.later(number / 2000, kind)
    flood.run()
    sys.stdout.write(json.dumps({**flood.counts, "held": flood.held}))


if __name__ == "__main__":
    main()
