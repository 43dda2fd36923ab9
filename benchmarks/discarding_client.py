"""
Replication clients that throw away what they get, at next to no cost of their own.

Run as a program: ``discarding_client.py HOST PORT START BYTES [CLIENTS]``.  Prints the seconds from the
START_REPLICATION commands until the first and until the last of the clients had received BYTES bytes, then
holds the connections, without reading, until its standard input ends: so the server's CPU time can be read
before it cleans up.

With MSG_TRUNC Linux takes bytes out of a TCP socket without copying them, so that the server is
what is measured.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time

READY = b"Z\x00\x00\x00\x05I"
RECEIVE_BYTES = 1 << 20


def connect(host: str, port: int) -> socket.socket:
    """Return a connection that is ready for commands."""
    connection = socket.create_connection((host, port), timeout=60)
    body = struct.pack("!I", 3 << 16) + b"user\0postgres\0replication\0true\0\0"
    connection.sendall(struct.pack("!I", len(body) + 4) + body)
    answer = b""
    while not answer.endswith(READY):
        piece = connection.recv(65536)
        if not piece:
            sys.exit(f"the server closed the connection: {answer!r}")
        answer += piece
    return connection


def main(host: str, port: int, start: str, wanted_bytes: int, clients: int = 1) -> None:
    """Connect, ask for WAL from *start*, receive and discard *wanted_bytes* each, and print the times."""
    connections = {}
    for connection in (connect(host, port) for _ in range(clients)):
        connections[connection.fileno()] = connection
    left = dict.fromkeys(connections, wanted_bytes)
    query = f"START_REPLICATION PHYSICAL {start}\0".encode()
    buffer = bytearray(RECEIVE_BYTES)
    done: list[float] = []
    with select.epoll() as poll:
        started = time.perf_counter()
        for descriptor, connection in connections.items():
            connection.sendall(b"Q" + struct.pack("!I", len(query) + 4) + query)
            connection.settimeout(None)
            poll.register(descriptor, select.EPOLLIN)
        while left:
            # One client waits in recv itself: it costs half as much.
            for descriptor in [e[0] for e in poll.poll()] if clients > 1 else list(left):
                count = connections[descriptor].recv_into(buffer, RECEIVE_BYTES, socket.MSG_TRUNC)
                if not count:
                    sys.exit(f"the server closed the connection, {left[descriptor]} bytes too early")
                left[descriptor] -= count
                if left[descriptor] <= 0:
                    poll.unregister(descriptor)
                    del left[descriptor]
                    done.append(time.perf_counter() - started)
    print(done[0], done[-1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:]))
