"""The contract by which a connection is let in: `IAuthorizer`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zope.interface import Interface

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address


@dataclass(frozen=True, slots=True)
class ConnectionRequest:
    """
    What is known of a client that wants to replicate.

    :ivar peer: its address as the kernel reports it, but an IPv4 client of a dual-stack
        socket by its IPv4 address; ``None`` for a unix socket.
    :ivar user: the name that it gives.
    """

    peer: IPv4Address | IPv6Address | None
    user: str

    @property
    def host(self) -> str:
        """The peer as PostgreSQL's messages name it."""
        return "[local]" if self.peer is None else str(self.peer)


class IAuthorizer(Interface):
    """Decides who may come in; an embedding program may bring its own."""

    def admit(request: ConnectionRequest) -> None:
        """
        Let the client in.

        :raises walsender.errors.InvalidAuthorization: it may not come in.
        """

    def may_replicate(request: ConnectionRequest) -> bool:
        """Return whether an admitted client may start a walsender."""
