"""
A replication client that throws away what it gets, at next to no cost of its own.

Run as a program: ``discarding_client.py HOST PORT START BYTES``.  Prints the seconds from the
START_REPLICATION command to the last of BYTES bytes received, then holds the connection, without
reading, until its standard input ends: so the server's CPU time can be read before it cleans up.

With MSG_TRUNC Linux takes bytes out of a TCP socket without copying them, so that the server is
what is measured.
"""

from __future__ import annotations

import socket
import struct
import sys
import time

READY = b"Z\x00\x00\x00\x05I"
RECEIVE_BYTES = 1 << 20


def main(host: str, port: int, start: str, wanted_bytes: int) -> None:
    """Connect, ask for WAL from *start*, receive and discard *wanted_bytes*, and print the time."""
    with socket.create_connection((host, port), timeout=60) as connection:
        body = struct.pack("!I", 3 << 16) + b"user\0postgres\0replication\0true\0\0"
        connection.sendall(struct.pack("!I", len(body) + 4) + body)
        answer = b""
        while not answer.endswith(READY):
            piece = connection.recv(65536)
            if not piece:
                sys.exit(f"the server closed the connection: {answer!r}")
            answer += piece
        query = f"START_REPLICATION PHYSICAL {start}\0".encode()
        buffer = bytearray(RECEIVE_BYTES)
        received = 0
        started = time.perf_counter()
        connection.sendall(b"Q" + struct.pack("!I", len(query) + 4) + query)
        while received < wanted_bytes:
            count = connection.recv_into(buffer, RECEIVE_BYTES, socket.MSG_TRUNC)
            if not count:
                sys.exit(f"the server closed the connection after {received} bytes")
            received += count
        print(time.perf_counter() - started, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
