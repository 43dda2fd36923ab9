"""
The rules of ``pg_hba.conf``: which connections match a line, and what is asked of them.

The first line that matches decides; there is no second try with another.  Read
from a file by `walsender.auth.hba_file.load_hba`; what differs from PostgreSQL is in docs/authentication.md.

Source: PostgreSQL, src/backend/libpq/hba.c, check_hba, check_db and check_role.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Final, TypeAlias

from walsender.auth.names import Name
from walsender.auth.own_addresses import own_interfaces
from walsender.auth.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

    from walsender.auth.interfaces import ConnectionRequest


class ConnectionType(enum.Enum):
    """The first word of a line."""

    LOCAL = "local"
    HOST = "host"
    HOSTSSL = "hostssl"
    HOSTNOSSL = "hostnossl"
    HOSTGSSENC = "hostgssenc"  # matches nothing: there is no GSSAPI encryption here
    HOSTNOGSSENC = "hostnogssenc"  # matches all of TCP, for the same reason


class Method(enum.Enum):
    """What is asked of the client."""

    TRUST = "trust"
    REJECT = "reject"
    PASSWORD = "password"  # noqa: S105 (a word of the file)
    MD5 = "md5"
    SCRAM_SHA_256 = "scram-sha-256"
    CERT = "cert"
    PEER = "peer"


class ClientCert(enum.Enum):
    """Which certificate the client must show, beside what the method asks."""

    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


class ClientName(enum.Enum):
    """What of a certificate is compared with the role's name."""

    CN = "CN"
    DN = "DN"


class OwnAddresses(enum.Enum):
    """Addresses that a line gives as those of this machine."""

    SAMEHOST = "samehost"
    SAMENET = "samenet"


ANYWHERE: Final = (ip_network("0.0.0.0/0"), ip_network("::/0"))
"""What ``all`` means as an address."""


@dataclass(frozen=True, slots=True)
class Subnet:
    """
    The addresses that are equal to *address* where *mask* has ones.

    Not an `ipaddress.ip_network`: PostgreSQL takes any mask, such as 255.0.255.0.
    """

    address: IPv4Address | IPv6Address
    mask: IPv4Address | IPv6Address

    def __contains__(self, peer: IPv4Address | IPv6Address) -> bool:
        """Return whether *peer* is one of them; an IPv4 address is no IPv6 address."""
        return peer.version == self.address.version and not (int(peer) ^ int(self.address)) & int(self.mask)


Addresses: TypeAlias = tuple[IPv4Network | IPv6Network | Subnet, ...]
OwnInterfaces: TypeAlias = "Callable[[], Iterable[IPv4Interface | IPv6Interface]]"


@dataclass(frozen=True, slots=True)
class HbaLine:
    """
    One rule.

    :ivar file: the path of the file that it stands in; empty for a built-in rule.
    :ivar number: the line, counted from 1.
    :ivar databases: names, keywords and regular expressions; the first field after the type.
    :ivar users: the same of roles.
    :ivar address: from where; ``None`` for `ConnectionType.LOCAL`.
    :ivar client_cert: which certificate is asked for; with `Method.CERT` always one whose name is verified.
    :ivar client_name: what of that certificate must be the role's name, or be mapped to it.
    :ivar map_name: of the map in ``pg_ident.conf``; ``None``: the names must be equal.
    """

    connection_type: ConnectionType
    databases: tuple[Name, ...]
    users: tuple[Name, ...]
    address: Addresses | OwnAddresses | None
    method: Method
    client_cert: ClientCert | None = None
    client_name: ClientName = ClientName.CN
    map_name: str | None = None
    file: str = ""
    number: int = 0

    def matches(self, request: ConnectionRequest, own_addresses: OwnInterfaces = own_interfaces) -> bool:
        """Return whether this line is about such a connection."""
        return (
            self._matches_transport(request)
            and self._matches_address(request, own_addresses)
            and any(_is_database(name, request) for name in self.databases)
            and any(name.is_keyword("all") or name.matches(request.user) for name in self.users)
        )

    def _matches_transport(self, request: ConnectionRequest) -> bool:
        kind = self.connection_type
        if request.peer is None or kind is ConnectionType.LOCAL:
            return request.peer is None and kind is ConnectionType.LOCAL
        if kind is ConnectionType.HOSTSSL:
            return request.tls is not None
        if kind is ConnectionType.HOSTNOSSL:
            return request.tls is None
        return kind is not ConnectionType.HOSTGSSENC

    def _matches_address(self, request: ConnectionRequest, own_addresses: OwnInterfaces) -> bool:
        if request.peer is None:
            return True
        if isinstance(self.address, OwnAddresses):
            interfaces = own_addresses()
            if self.address is OwnAddresses.SAMEHOST:
                # Not ==: a link-local peer has the name of the link in its address.
                return any(request.peer in ip_network(interface.ip) for interface in interfaces)
            return any(request.peer in interface.network for interface in interfaces)
        assert self.address is not None, "only a line about unix sockets has no address"
        return any(request.peer in network for network in self.address)


def _is_database(name: Name, request: ConnectionRequest) -> bool:
    """Return whether a name in the field of databases means what the client asks for."""
    if request.replication:
        return name.is_keyword("replication")  # and nothing else, not even "all"
    if name.is_keyword("all"):
        return True
    if name.is_keyword("sameuser"):
        return request.database == request.user
    return not name.is_keyword("replication") and name.matches(request.database)


@dataclass(frozen=True, slots=True)
class HbaRules:
    """All lines of a file, in their order."""

    lines: tuple[HbaLine, ...]

    def __iter__(self) -> Iterator[HbaLine]:
        """Iterate over the lines."""
        return iter(self.lines)

    def find(
        self, request: ConnectionRequest, own_addresses: OwnInterfaces = own_interfaces
    ) -> HbaLine | None:
        """
        Return the first line that matches, which decides; ``None``: the client may not come in.

        :param own_addresses: gives the interfaces of this machine, for ``samehost`` and ``samenet``.
        :raises walsender.errors.OutOfResources: they are needed, and the system does not tell them.
        """
        return next((line for line in self.lines if line.matches(request, own_addresses)), None)

    def warnings(self, *, ssl: bool) -> Sequence[Problem]:
        """
        Return which lines cannot match anything, as PostgreSQL warns of them when it reads the file.

        :param ssl: connections may be encrypted.
        """
        found = []
        for line in self.lines:
            if line.connection_type is ConnectionType.HOSTSSL and not ssl:
                text = "hostssl record cannot match because SSL is disabled"
                found.append(Problem(text, line.file, line.number, "Set ssl = on."))
            elif line.connection_type is ConnectionType.HOSTGSSENC:
                text = "hostgssenc record cannot match because GSSAPI is not supported by this build"
                found.append(Problem(text, line.file, line.number))
        return found


_EVERYTHING: Final = (Name("all"), Name("replication"))
_LOOPBACK: Final = (ip_network("127.0.0.0/8"), ip_network("::1/128"))

THIS_MACHINE: Final = HbaRules(
    (
        HbaLine(ConnectionType.LOCAL, _EVERYTHING, (Name("all"),), None, Method.TRUST),
        HbaLine(ConnectionType.HOST, _EVERYTHING, (Name("all"),), _LOOPBACK, Method.TRUST),
    )
)
"""The rules where no file is given: loopback and unix sockets, and nobody else."""
