"""
Clients that are not let in yet: never more than a bound, and no address at the cost of the others.

Whoever may connect at all can open connections and say nothing.  Were new ones refused once there
are too many, a handful of silent machines would keep out every standby for ``authentication_timeout``,
and again.  So the one that has waited longest gives way instead, of the address that has most of
them: a flood drives out itself.  An honest client needs its place for the milliseconds of a handshake.

Fifty standbys behind one address that all come back at the same time are no flood: nobody is driven
out before the room is full.

(sshd's ``MaxStartups`` and ``PerSourceMaxStartups`` refuse the newcomer; PostgreSQL counts such
connections too, and says "sorry, too many clients already".)
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from twisted.internet.address import IPv4Address, IPv6Address

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

T = TypeVar("T")

_ONE_HOST: Final = 64  # bits: one machine may have all addresses of an IPv6 network of this size


def origin(peer: IAddress) -> str:
    """Return whom to blame for a connection: an IPv4 address, an IPv6 network, or all local sockets."""
    if not isinstance(peer, (IPv4Address, IPv6Address)):
        return "[local]"
    address = ipaddress.ip_address(peer.host.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, _ONE_HOST), strict=False))


class WaitingRoom(Generic[T]):
    """
    Who waits, by where they come from.

    :ivar limit: how many there may be.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._origins: dict[T, str] = {}
        self._waiting: dict[str, dict[T, None]] = {}  # of each origin in the order in which they came

    def __len__(self) -> int:
        return len(self._origins)

    def enter(self, client: T, peer: IAddress) -> T | None:
        """
        Take *client* in, and return who has to go for it, if anybody.

        Who is returned has left already.
        """
        where = origin(peer)
        self._origins[client] = where
        self._waiting.setdefault(where, {})[client] = None
        if len(self._origins) <= self.limit:
            return None
        # Of equals the first: who was there first among the origins.
        greediest = max(self._waiting.values(), key=len)
        oldest = next(iter(greediest))
        self.leave(oldest)
        return oldest

    def leave(self, client: T) -> None:
        """*client* is let in, or gone; harmless when repeated."""
        where = self._origins.pop(client, None)
        if where is not None:
            there = self._waiting[where]
            del there[client]
            if not there:
                del self._waiting[where]
