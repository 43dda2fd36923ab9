"""The contract by which a connection is let in: `IAuthorizer`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zope.interface import Interface

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from ipaddress import IPv4Address, IPv6Address

    from walsender.wire import AuthenticationRequest, MessageRules


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """
    What an encrypted connection says about its client, and about us.

    :ivar verified: it has shown a certificate that one of our authorities has signed.
    :ivar common_name: of that certificate; ``None`` if there is no certificate, or none in it.
    :ivar distinguished_name: of that certificate's subject, as RFC 2253 writes it; ``None`` as above.
    :ivar authorities: there are some, so that a certificate could have been verified.
    :ivar end_point: the hash of our certificate, by which SCRAM binds a password to this connection
        (``tls-server-end-point``); ``None``: that kind of certificate has none.
    :ivar cipher: how it is encrypted, for the log: ``protocol=TLSv1.3, cipher=…, bits=256``.
    """

    verified: bool = False
    common_name: str | None = None
    distinguished_name: str | None = None
    authorities: bool = False
    end_point: bytes | None = None
    cipher: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Authenticated:
    """
    How a client has shown who it is, for the log.

    :ivar method: as ``pg_hba.conf`` names it.
    :ivar identity: who it is by that method, before any map; ``None``: it has not been asked.
    :ivar where: file and line of the rule; empty: a built-in one.
    """

    method: str
    identity: str | None = None
    where: str = ""


@dataclass(frozen=True, slots=True)
class ConnectionRequest:
    """
    What is known of a client that wants to come in.

    :ivar peer: its address as the kernel reports it, but an IPv4 client of a dual-stack
        socket by its IPv4 address; ``None`` for a unix socket.
    :ivar user: the name that it gives.
    :ivar database: the name that it gives; not looked at if it wants physical replication.
    :ivar replication: it wants physical replication (``replication=true``).
    :ivar tls: ``None`` if the connection is not encrypted.
    :ivar peer_uid: at a unix socket, the number of the user whose process is at the other
        end; ``None`` where that is not known.
    """

    peer: IPv4Address | IPv6Address | None
    user: str
    database: str = ""
    replication: bool = True
    tls: TlsInfo | None = None
    peer_uid: int | None = None

    @property
    def host(self) -> str:
        """The peer as PostgreSQL's messages name it."""
        return "[local]" if self.peer is None else str(self.peer)

    @property
    def encryption(self) -> str:
        """How the connection is encrypted, as PostgreSQL's messages name it."""
        return "no encryption" if self.tls is None else "SSL encryption"


class IAuthenticationClient(Interface):
    """A client that is asked who it is."""

    def send(message: AuthenticationRequest) -> None:
        """Ask for something."""

    def receive(rules: MessageRules) -> Awaitable[bytes]:
        """
        Wait for the answer and return its bytes.

        :param rules: how long it may be: `walsender.wire.PASSWORD_MESSAGES` or ``SASL_MESSAGES``.
        :raises walsender.errors.WalsenderError: the client sends something else, or too much.
        """


class IAuthorizer(Interface):
    """Decides who may come in; an embedding program may bring its own."""

    def authenticate(
        request: ConnectionRequest, client: IAuthenticationClient
    ) -> Awaitable[Authenticated | None]:
        """
        Find out whether the client is who it says, and return when it is, and how that was found out.

        Usually ``async def``.  Cancelled when the connection ends, and after
        ``authentication_timeout``; the caller tells the client that it may come in.

        :raises walsender.errors.InvalidAuthorization: it may not come in.
        """

    def may_replicate(request: ConnectionRequest) -> bool:
        """Return whether an admitted client may start a walsender."""

    def may_administer(request: ConnectionRequest) -> bool:
        """Return whether an admitted client of the console may drop slots, end connections and so on."""
