"""
The addresses of this machine, which ``samehost`` and ``samenet`` mean.

Asked of Linux through a netlink socket, as getifaddrs of the C library does:
one request, answered by the kernel at once.

Source: rtnetlink(7), netlink(7).
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import TYPE_CHECKING, Final, TypeAlias

from walsender.errors import OutOfResources

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Interface: TypeAlias = IPv4Interface | IPv6Interface

HAS_OWN_ADDRESSES: Final = hasattr(socket, "AF_NETLINK")
"""Whether this system can be asked."""

_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_RTM_NEWADDR: Final = 20
_RTM_GETADDR: Final = 22
_REQUEST_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2  # IPv4: our end of a point-to-point link, where the other is IFA_ADDRESS
_MESSAGE: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ADDRESS: Final = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, interface
_ATTRIBUTE: Final = struct.Struct("=HH")  # length, type
_FAMILIES: Final = frozenset({socket.AF_INET, socket.AF_INET6})
_BUFFER_SIZE: Final = 1 << 16


class InterfacesUnknown(OutOfResources, severity="FATAL"):
    """Nobody can be let in by a rule about our own addresses, nor past it."""


def own_interfaces() -> Sequence[Interface]:
    """
    Return every address that this machine has now, with its network.

    :raises InterfacesUnknown: the system does not tell.
    """
    try:
        return _ask()
    except OSError as error:
        raise InterfacesUnknown(f"error enumerating network interfaces: {error.strerror}") from error


def _ask() -> Sequence[Interface]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        body = _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        kernel.send(_MESSAGE.pack(_MESSAGE.size + len(body), _RTM_GETADDR, _REQUEST_DUMP, 1, 0) + body)
        found: list[Interface] = []
        while True:
            for kind, message in _parts(kernel.recv(_BUFFER_SIZE), _MESSAGE):
                if kind == _NLMSG_DONE:
                    return found
                if kind == _NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", message)
                    raise OSError(-code, "the kernel does not list the network interfaces")
                if kind == _RTM_NEWADDR and (interface := _interface(message)) is not None:
                    found.append(interface)


def _interface(message: bytes) -> Interface | None:
    family, length, *_ = _ADDRESS.unpack_from(message)
    if family not in _FAMILIES:
        return None
    attributes = dict(_parts(message[_ADDRESS.size :], _ATTRIBUTE))
    packed = attributes.get(_IFA_LOCAL, attributes.get(_IFA_ADDRESS))
    return None if packed is None else ip_interface((packed, length))


def _parts(data: bytes, header: struct.Struct) -> Iterator[tuple[int, bytes]]:
    """Return type and content of each part of *data*; a header begins with the length of all."""
    at = 0
    while at + header.size <= len(data):
        length, kind, *_ = header.unpack_from(data, at)
        yield kind, data[at + header.size : at + length]
        at += max(length, header.size) + 3 & ~3
