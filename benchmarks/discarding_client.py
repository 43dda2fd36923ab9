"""
Replication clients that throw away what they get, at next to no cost of their own.

Run as a program: ``discarding_client.py HOST PORT START BYTES [CLIENTS [TLS [COPIED]]]``.  Prints the seconds
from the START_REPLICATION commands until the first and until the last of the clients had received BYTES
bytes, then holds the connections, without reading, until its standard input ends: so the server's CPU time
can be read before it cleans up.

With MSG_TRUNC Linux takes bytes out of a TCP socket without copying them, so that the server is
what is measured.  If COPIED is not 0 they are copied all the same, as by any real client, which the server
then has to wake less often.  Under TLS (if TLS is not 0) they are not even decrypted: what is counted are
bytes on the wire, a thousandth more than their content.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import struct
import sys
import time

SSL_REQUEST = 1234 << 16 | 5679
READY = b"Z\x00\x00\x00\x05I"
RECEIVE_BYTES = 1 << 20


def connect(host: str, port: int, *, tls: bool) -> tuple[socket.socket, socket.socket]:
    """Return a connection that is ready for commands, to say them on, and its socket below TLS."""
    connection = socket.create_connection((host, port), timeout=60)
    below = connection
    if tls:
        connection.sendall(struct.pack("!II", 8, SSL_REQUEST))
        if connection.recv(1) != b"S":
            sys.exit("the server has no TLS")
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = context.wrap_socket(connection)
        below = socket.socket(fileno=os.dup(connection.fileno()))
    body = struct.pack("!I", 3 << 16) + b"user\0postgres\0replication\0true\0\0"
    connection.sendall(struct.pack("!I", len(body) + 4) + body)
    answer = b""
    while not answer.endswith(READY):
        piece = connection.recv(65536)
        if not piece:
            sys.exit(f"the server closed the connection: {answer!r}")
        answer += piece
    return connection, below


def main(
    host: str, port: int, start: str, wanted_bytes: int, clients: int = 1, tls: int = 0, copied: int = 0
) -> None:
    """Connect, ask for WAL from *start*, receive and discard *wanted_bytes* each, and print the times."""
    both = [connect(host, port, tls=bool(tls)) for _ in range(clients)]
    connections = {below.fileno(): below for _, below in both}
    left = dict.fromkeys(connections, wanted_bytes)
    query = f"START_REPLICATION PHYSICAL {start}\0".encode()
    buffer = bytearray(RECEIVE_BYTES)
    flags = 0 if copied else socket.MSG_TRUNC
    done: list[float] = []
    with select.epoll() as poll:
        started = time.perf_counter()
        for connection, below in both:
            connection.sendall(b"Q" + struct.pack("!I", len(query) + 4) + query)
            below.setblocking(True)
            poll.register(below, select.EPOLLIN)
        while left:
            # One client waits in recv itself: it costs half as much.
            for descriptor in [e[0] for e in poll.poll()] if clients > 1 else list(left):
                count = connections[descriptor].recv_into(buffer, RECEIVE_BYTES, flags)
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
