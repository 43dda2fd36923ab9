"""
From a libpq connection string to what libpq is given.

libpq looks host names up while it connects, and everybody waits.  Here they are looked up
by the reactor, and given as ``hostaddr`` beside ``host``, so that certificates
and password files still see the name.  Parsing, defaults, the environment and service files are libpq's.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from twisted.internet import defer
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from walsender.errors import ConfigurationError
from walsender.upstream.interfaces import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from walsender.upstream.socket_watch import IUpstreamReactor

# What libpq says of a string that it cannot parse quotes a piece of it, which may be one of a secret.
_MAY_HOLD_SECRETS: Final = re.compile("pass|secret|scram|://", re.IGNORECASE)

# As PostgreSQL's walreceiver (libpqwalreceiver.c): the server ignores the database, .pgpass does not.
_OURS: Final[Mapping[str, str]] = {"replication": "true", "dbname": "replication"}
_NAME: Final = "walsender"


def parse_conninfo(conninfo: str) -> dict[str, str]:
    """
    Return the keywords and values that *conninfo*, in either of libpq's forms, sets.

    :raises ConfigurationError: libpq cannot parse it.
    """
    try:
        options = pq.Conninfo.parse(conninfo.encode())
    except (psycopg.Error, ValueError) as error:  # ValueError: bytes that no text has
        reason = "" if _MAY_HOLD_SECRETS.search(conninfo) else f": {str(error).strip()}"
        raise ConfigurationError(f"invalid connection string{reason}") from None
    return {option.keyword.decode(): option.val.decode() for option in options if option.val is not None}


def effective_options(parameters: Mapping[str, str]) -> dict[str, str]:
    """
    Return *parameters* with what the environment, a service file and libpq's defaults add.

    Nothing is returned if libpq finds a fault on the way; it will find it again when it is to connect.
    """
    # libpq tells of a connection only, so there is one that can go nowhere.
    refused = pq.PGconn.connect_start(make_conninfo(**{**parameters, "sslmode": "none of them"}).encode())
    try:
        return {
            option.keyword.decode(): option.val.decode(errors="surrogateescape")
            for option in refused.info
            if option.val is not None
        }
    finally:
        refused.finish()


def connect_timeout(options: Mapping[str, str], default_s: float) -> float:
    """
    Return for how many seconds each host is tried; 0 is for as long as it takes.

    libpq leaves this to whoever uses its asynchronous calls.

    :raises UpstreamError: the option's value is no number.
    """
    text = options.get("connect_timeout")
    if text is None:
        return default_s
    try:
        return max(0, int(text))
    except ValueError:
        message = f'invalid integer value "{text}" for connection option "connect_timeout"'
        raise UpstreamError(message) from None


@dataclass(frozen=True, slots=True)
class Target:
    """
    One place to connect to.

    :ivar host: name, address or directory of a unix socket; ``""`` for libpq's default.
    :ivar address: numeric; ``""`` if *host* is no name or is to be looked up yet.
    """

    host: str
    address: str
    port: str

    @property
    def is_name(self) -> bool:
        """Whether somebody has to look *host* up."""
        return not (
            self.address
            or not self.host
            or self.host.startswith(("/", "@"))
            or isIPAddress(self.host)
            or isIPv6Address(self.host)
        )

    def __str__(self) -> str:
        """As libpq names it in its errors."""
        address = f" ({self.address})" if self.address and self.host else ""
        return f'server at "{self.host or self.address}"{address}, port {self.port}'


def targets_of(options: Mapping[str, str]) -> list[Target]:
    """
    Return where *options* lead, in the order in which to try.

    Nothing is returned if the lists of hosts, addresses and ports do not fit: that libpq is to judge.

    Source: PostgreSQL, src/interfaces/libpq/fe-connect.c, pqConnectOptions2.
    """
    hosts, addresses, ports = (options.get(name, "").split(",") for name in ("host", "hostaddr", "port"))
    count = len(addresses) if options.get("hostaddr") else len(hosts)
    lists = []
    for values in (hosts, addresses, ports):
        spread = values * count if values == [""] or (values is ports and len(values) == 1) else values
        if len(spread) != count:
            return []
        lists.append(spread)
    targets = [Target(*values) for values in zip(*lists, strict=True)]
    if options.get("load_balance_hosts") == "random":
        random.shuffle(targets)
    return targets


@implementer(IResolutionReceiver)
class _Addresses:
    """Gathers what a name stands for; *found* fires when that is all."""

    def __init__(self) -> None:
        self._addresses: list[str] = []
        self.found: Deferred[list[str]] = Deferred()

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """See `IResolutionReceiver`."""

    def addressResolved(self, address: IAddress) -> None:
        """See `IResolutionReceiver`."""
        if isinstance(address, IPv4Address | IPv6Address) and address.host not in self._addresses:
            self._addresses.append(address.host)

    def resolutionComplete(self) -> None:
        """See `IResolutionReceiver`."""
        self.found.callback(self._addresses)


async def resolved(
    reactor: IUpstreamReactor, targets: Sequence[Target], timeout_s: float
) -> tuple[list[Target], list[str]]:
    """
    Return *targets* with each name replaced by all that it stands for, and what could not be looked up.

    :param timeout_s: for each name; 0 is for as long as it takes.
    """
    lookups: dict[str, Deferred[list[str]]] = {}
    for target in targets:
        if target.is_name and target.host not in lookups:
            addresses = _Addresses()
            if timeout_s:
                addresses.found.addTimeout(timeout_s, reactor)
            reactor.nameResolver.resolveHostName(addresses, target.host)
            lookups[target.host] = addresses.found
    found: dict[str, list[str]] = {}
    try:
        for name, lookup in lookups.items():
            try:
                found[name] = await lookup
            except defer.TimeoutError:
                found[name] = []
    finally:
        # We may be cancelled in the middle.
        for lookup in lookups.values():
            lookup.addErrback(lambda _: None)
            lookup.cancel()
    places = [
        replace(target, address=address)
        for target in targets
        for address in (found[target.host] if target.is_name else [target.address])
    ]
    failures = [
        f'could not translate host name "{name}" to an address'
        for name, addresses in found.items()
        if not addresses
    ]
    return places, failures


def conninfo_for(parameters: Mapping[str, str], targets: Sequence[Target]) -> bytes:
    """
    Return the connection string to give to libpq.

    :param parameters: what the user has set.
    :param targets: instead of the user's hosts, in this order; none to leave those.
    """
    chosen = {"fallback_application_name": _NAME, **parameters, **_OURS}
    if targets:
        chosen |= {
            "host": ",".join(target.host for target in targets),
            "hostaddr": ",".join(target.address for target in targets),
            "port": ",".join(target.port for target in targets),
            "load_balance_hosts": "disable",  # they have been shuffled
        }
    return make_conninfo(**chosen).encode()
