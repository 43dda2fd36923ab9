"""Who is at the other end of a connection, as far as the kernel knows."""

from __future__ import annotations

import ipaddress
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone, ConnectionLost

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, ITransport

    from walsender.sender.interfaces import IClientTransport

_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: process, user, group


def peer_text(address: IAddress) -> str:
    """Return where a client comes from, for the log."""
    if isinstance(address, (IPv4Address, IPv6Address)):
        return f"{address.host}:{address.port}"
    return "[local]"


def peer_address(address: IAddress) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address | None, int]:
    """Return a client's address and port; ``None`` and -1 of a unix socket."""
    if not isinstance(address, (IPv4Address, IPv6Address)):
        return None, -1
    host = ipaddress.ip_address(address.host)
    # A dual-stack socket reports an IPv4 client so: ::ffff:192.0.2.1
    return getattr(host, "ipv4_mapped", None) or host, address.port


def peer_user_id(transport: IClientTransport) -> int | None:
    """Return the number of the user whose process has connected to a unix socket; ``None`` of any other."""
    if not isinstance(transport.getPeer(), UNIXAddress):
        return None
    handle = transport.getHandle()
    if not isinstance(handle, socket.socket):
        return None
    credentials = handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user_id, _ = _CREDENTIALS.unpack(credentials)
    return int(user_id)


def set_tcp_options(transport: IClientTransport) -> None:
    """Send small messages at once, notice a peer that is gone without a word, pace nobody on this machine."""
    if not isinstance(transport.getPeer(), (IPv4Address, IPv6Address)):
        return
    transport.setTcpNoDelay(True)
    transport.setTcpKeepAlive(True)
    if is_on_this_machine(transport):
        _do_not_pace(transport)


def is_on_this_machine(transport: ITransport) -> bool:
    """Tell whether a TCP client's packets never leave this machine: it has a loopback address, or our own."""
    peer, _ = peer_address(transport.getPeer())
    host, _ = peer_address(transport.getHost())
    return peer is not None and (peer.is_loopback or peer == host)


def _do_not_pace(transport: IClientTransport) -> None:
    """
    Use Reno, which every Linux has and permits to everybody, whatever the machine's congestion control is.

    The loopback device has no bandwidth to be found out and loses nothing.  BBR, which many machines have as
    their default for the sake of real networks, searches all the same: it costs up to twice the processor
    time per byte.
    """
    handle = transport.getHandle()
    option = getattr(socket, "TCP_CONGESTION", None)  # Linux and FreeBSD; the latter may refuse it
    if option is not None and isinstance(handle, socket.socket):
        with suppress(OSError):
            handle.setsockopt(socket.IPPROTO_TCP, option, b"reno")


def accept_few(transport: ITransport) -> None:
    """
    Have the port accept some twenty connections in a turn at most, however many there are.

    Of its own it would accept twenty more in each turn than in the last while that does not suffice:
    under a flood turns would take ever longer, with ever more connections to be closed in the next turn only.
    A port of another kind, which has no such number, is left as it is.
    """
    port: Any = getattr(transport, "server", None)
    if hasattr(port, "numberAccepts"):
        port.numberAccepts = 1


def error_text(error: BaseException | None) -> str:
    """Return why a connection was lost; what OpenSSL says in its words, without the rest of its queue."""
    if isinstance(error, (ConnectionDone, ConnectionLost)):
        return "EOF detected"
    queue = error.args[0] if error is not None and error.args else None
    return str(queue[-1][-1] if isinstance(queue, list) and queue else error)
