"""The contract by which a connection is let in: `IAuthorizer`."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from zope.interface import Interface

if TYPE_CHECKING:
    from ipaddress import IPv4Address


@dataclass(frozen=True, slots=True)
class ConnectionRequest:
    """
    What is known of a client that wants to replicate.

    :ivar peer: its address as the kernel reports it; ``None`` for a unix socket.
    :ivar user: the name that it gives.
    """

    peer: IPv4Address | IPv6Address | None
    user: str

    @property
    def host(self) -> str:
        """The peer as PostgreSQL's messages name it."""
        if self.peer is None:
            return "[local]"
        # A socket of the new family that takes clients of the old one as well.
        if isinstance(self.peer, IPv6Address) and self.peer.ipv4_mapped is not None:
            return str(self.peer.ipv4_mapped)
        return str(self.peer)


class IAuthorizer(Interface):
    """Decides who may come in; an embedding program may bring its own."""

    def admit(request: ConnectionRequest) -> None:
        """
        Let the client in.

        :raises walsender.errors.InvalidAuthorization: it may not come in.
        """

    def may_replicate(request: ConnectionRequest) -> bool:
        """Return whether an admitted client may start a walsender."""
