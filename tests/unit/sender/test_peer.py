"""What the kernel is told of a client's connection."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from walsender.sender.peer import is_on_this_machine, set_tcp_options


def _address(host: str, port: int = 5433) -> IPv4Address | IPv6Address:
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)


class _Transport:
    """A connection's two ends, and its socket."""

    def __init__(self, host: Any, peer: Any, handle: socket.socket | None = None) -> None:
        self.host, self.peer, self.handle = host, peer, handle
        self.options: list[str] = []

    def getHost(self) -> Any:
        """See `ITransport`."""
        return self.host

    def getPeer(self) -> Any:
        """See `ITransport`."""
        return self.peer

    def getHandle(self) -> socket.socket | None:
        """See `ISystemHandle`."""
        return self.handle

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See `ITCPTransport`."""
        self.options.append("TCP_NODELAY")

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """See `ITCPTransport`."""
        self.options.append("SO_KEEPALIVE")


class PlaceTests(SynchronousTestCase):
    """Where a client is."""

    def test_onThisMachine(self) -> None:
        """Loopback addresses of both families, mapped ones, and our own address at both ends."""
        for host, peer, expected in (
            ("127.0.0.1", "127.0.0.1", True),
            ("127.0.0.1", "127.0.0.2", True),
            ("::1", "::1", True),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1", True),
            ("192.0.2.1", "192.0.2.1", True),
            ("192.0.2.1", "192.0.2.2", False),
            ("2001:db8::1", "2001:db8::2", False),
        ):
            transport: Any = _Transport(_address(host), _address(peer))
            self.assertIs(expected, is_on_this_machine(transport), (host, peer))


class OptionsTests(SynchronousTestCase):
    """What is set, on real sockets."""

    def congestion_control(self, host: str, peer: str) -> tuple[bytes, bytes]:
        """Return what a socket of a machine with another default uses, and what it uses with our options."""
        handle = socket.socket()
        self.addCleanup(handle.close)
        permitted = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_bytes().split()
        other = next((name for name in permitted if name != b"reno"), b"reno")
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, other)
        transport: Any = _Transport(_address(host), _address(peer), handle)
        set_tcp_options(transport)
        self.assertEqual(["TCP_NODELAY", "SO_KEEPALIVE"], transport.options)
        used = handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        return other, used.rstrip(b"\0")

    def test_nobodyIsPacedOnThisMachine(self) -> None:
        """A client of this machine is sent by Reno; any other as the machine's administrator wants it."""
        _, used = self.congestion_control("127.0.0.1", "127.0.0.1")
        self.assertEqual(b"reno", used)
        other, used = self.congestion_control("192.0.2.1", "192.0.2.2")
        self.assertEqual(other, used)

    def test_notASocket(self) -> None:
        """A transport that has no socket has no congestion control."""
        transport: Any = _Transport(_address("127.0.0.1"), _address("127.0.0.1"))
        set_tcp_options(transport)
        self.assertEqual(["TCP_NODELAY", "SO_KEEPALIVE"], transport.options)

    def test_unixSocket(self) -> None:
        """It has nothing of TCP."""
        transport: Any = _Transport(UNIXAddress("a"), UNIXAddress(""))
        set_tcp_options(transport)
        self.assertEqual([], transport.options)
