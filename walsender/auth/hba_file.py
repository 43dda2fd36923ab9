"""
`load_hba`: a file in the syntax of ``pg_hba.conf`` becomes `HbaRules`.

What is refused that PostgreSQL takes is refused by name: a rule that cannot be
kept must not be taken for one that is.

Source: PostgreSQL, src/backend/libpq/hba.c, parse_hba_line, parse_hba_auth_opt and load_hba.
"""

from __future__ import annotations

import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final, NoReturn

from walsender.auth.hba import (
    ANYWHERE,
    Addresses,
    ClientCert,
    ClientName,
    ConnectionType,
    HbaLine,
    HbaRules,
    Method,
    OwnAddresses,
    Subnet,
)
from walsender.auth.names import Name
from walsender.auth.own_addresses import HAS_OWN_ADDRESSES
from walsender.auth.problems import AccessFileError, Problem
from walsender.auth.tokens import Record, RefusedRecord, read_lines

if TYPE_CHECKING:
    from walsender.auth.tokens import Field, Token

# Methods that PostgreSQL has, or had until lately, and we have not.
_UNSUPPORTED: Final = frozenset({"bsd", "gss", "ident", "ldap", "oauth", "pam", "radius", "sspi"})

# Which methods an option of PostgreSQL's belongs to, as its messages say it.
_FOREIGN_OPTIONS: Final = {
    **dict.fromkeys(("pamservice", "pam_use_hostname"), "pam"),
    **dict.fromkeys(
        (
            "ldapurl",
            "ldaptls",
            "ldapscheme",
            "ldapserver",
            "ldapport",
            "ldapbinddn",
            "ldapbindpasswd",
            "ldapsearchattribute",
            "ldapsearchfilter",
            "ldapbasedn",
            "ldapprefix",
            "ldapsuffix",
        ),
        "ldap",
    ),
    **dict.fromkeys(("krb_realm", "include_realm"), "gssapi and sspi"),
    **dict.fromkeys(("compat_realm", "upn_username"), "sspi"),
    **dict.fromkeys(("radiusservers", "radiusports", "radiussecrets", "radiusidentifiers"), "radius"),
    **dict.fromkeys(("issuer", "scope", "validator", "delegate_ident_mapping"), "oauth"),
}
_MAPPED: Final = frozenset({Method.PEER, Method.CERT})
_C_INTEGER: Final = re.compile(r"[ \t-\r]*([+-]?[0-9]+)", re.ASCII)


def load_hba(path: str) -> HbaRules:
    """
    Return the rules in the file *path* and those that it includes.

    :param path: absolute.
    :raises AccessFileError: it cannot be read, has no line, or one of its lines is wrong; all are told.
    """
    lines, problems = read_lines(path, lambda record: _Reader(record).line())
    if not lines and not problems:
        problems.append(Problem(f'configuration file "{path}" contains no entries'))
    if problems:
        raise AccessFileError(path, problems)
    return HbaRules(tuple(lines))


class _Reader:
    """Takes one field after another from a record."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._fields = iter(record.fields)

    def line(self) -> HbaLine:
        """
        Return the rule.

        :raises RefusedRecord: there is none.
        """
        connection_type = self._connection_type()
        databases = _names(self._field("database specification"))
        users = _names(self._field("role specification"))
        for name in databases:
            if name.is_keyword("samerole") or name.is_keyword("samegroup"):
                _refuse_group(name)
        for name in users:
            if name.is_group:
                _refuse_group(name)
        address = None if connection_type is ConnectionType.LOCAL else self._address()
        method = self._method(connection_type)
        cert, client_name, map_name = self._options(connection_type, method)
        return HbaLine(
            connection_type,
            databases,
            users,
            address,
            method,
            ClientCert.VERIFY_FULL if method is Method.CERT else cert,
            client_name,
            map_name,
            self._record.file,
            self._record.line,
        )

    def _field(self, before: str, hint: str | None = None) -> Field:
        field = next(self._fields, None)
        if field is None:
            raise RefusedRecord(f"end-of-line before {before}", hint)
        return field

    def _token(self, before: str, kind: str, hint: str | None, eol_hint: str | None = None) -> Token:
        """Return the only token of the next field."""
        field = self._field(before, eol_hint)
        if len(field) > 1:
            raise RefusedRecord(f"multiple values specified for {kind}", hint)
        return field[0]

    def _connection_type(self) -> ConnectionType:
        token = self._token(
            "connection type", "connection type", "Specify exactly one connection type per line."
        )
        try:
            return ConnectionType(token.text)
        except ValueError:
            raise RefusedRecord(f'invalid connection type "{token.text}"') from None

    def _address(self) -> Addresses | OwnAddresses:
        token = self._token("IP address specification", "host address", "Specify one address range per line.")
        if not token.quoted:
            if token.text == "all":
                return ANYWHERE
            if token.text in {"samehost", "samenet"}:
                if not HAS_OWN_ADDRESSES:
                    raise RefusedRecord(f'"{token.text}" is not supported on this system')
                return OwnAddresses(token.text)
        text, slash, bits = token.text.partition("/")
        try:
            address = _numeric(text)
        except socket.gaierror as error:
            if error.errno != socket.EAI_NONAME:
                raise RefusedRecord(f'invalid IP address "{text}": {error.strerror}') from None
            if slash:
                raise RefusedRecord(
                    f'specifying both host name and CIDR mask is invalid: "{token.text}"'
                ) from None
            raise RefusedRecord(
                f'host name "{token.text}" is not supported as an address',
                "Give an IP address with its mask, for example 192.0.2.7/32.",
            ) from None
        if not slash:
            return (Subnet(address, self._mask(address)),)
        length = _C_INTEGER.fullmatch(bits)
        if length is None or not 0 <= int(length[1]) <= address.max_prefixlen:
            raise RefusedRecord(f'invalid CIDR mask in address "{token.text}"')
        ones = (1 << address.max_prefixlen) - 1
        return (Subnet(address, type(address)(ones ^ (ones >> int(length[1])))),)

    def _mask(self, address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
        token = self._token(
            "netmask specification",
            "netmask",
            None,
            "Specify an address range in CIDR notation, or provide a separate netmask.",
        )
        try:
            mask = _numeric(token.text)
        except socket.gaierror as error:
            raise RefusedRecord(f'invalid IP mask "{token.text}": {error.strerror}') from None
        if mask.version != address.version:
            raise RefusedRecord("IP address and mask do not match")
        return mask

    def _method(self, connection_type: ConnectionType) -> Method:
        word = self._token(
            "authentication method",
            "authentication type",
            "Specify exactly one authentication type per line.",
        ).text
        local = connection_type is ConnectionType.LOCAL
        if word == "ident" and local:
            return Method.PEER  # so it has meant since there is peer
        if word in _UNSUPPORTED:
            raise RefusedRecord(f'invalid authentication method "{word}": not supported by this build')
        try:
            method = Method(word)
        except ValueError:
            raise RefusedRecord(f'invalid authentication method "{word}"') from None
        if method is Method.PEER and not local:
            raise RefusedRecord("peer authentication is only supported on local sockets")
        if method is Method.CERT and connection_type is not ConnectionType.HOSTSSL:
            raise RefusedRecord("cert authentication is only supported on hostssl connections")
        return method

    def _options(
        self, connection_type: ConnectionType, method: Method
    ) -> tuple[ClientCert | None, ClientName, str | None]:
        cert: ClientCert | None = None
        client_name = ClientName.CN
        map_name: str | None = None
        for token in (token for field in self._fields for token in field):
            name, equals, value = token.text.partition("=")
            if not equals:
                raise RefusedRecord(f"authentication option not in name=value format: {token.text}")
            if name in {"clientcert", "clientname"} and connection_type is not ConnectionType.HOSTSSL:
                raise RefusedRecord(f'{name} can only be configured for "hostssl" rows')
            match name:
                case "map":
                    if method not in _MAPPED:
                        _refuse_option(name, "peer and cert")
                    map_name = value or None
                case "clientcert":
                    cert = _client_cert(value, method)
                case "clientname":
                    try:
                        client_name = ClientName(value)
                    except ValueError:
                        raise RefusedRecord(f'invalid value for clientname: "{value}"') from None
                case _ if name in _FOREIGN_OPTIONS:
                    _refuse_option(name, _FOREIGN_OPTIONS[name])
                case _:
                    raise RefusedRecord(f'unrecognized authentication option name: "{name}"')
        return cert, client_name, map_name


def _names(field: Field) -> tuple[Name, ...]:
    return tuple(Name.of(token) for token in field)


def _numeric(text: str) -> IPv4Address | IPv6Address:
    """
    Return the address that *text* means; PostgreSQL, too, leaves that to the system.

    :raises socket.gaierror: EAI_NONAME: it is a host name.  Nobody is asked what it means.
    """
    if not text:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    found = socket.getaddrinfo(text.encode("utf-8", "surrogateescape"), None, flags=socket.AI_NUMERICHOST)
    return ip_address(str(found[0][4][0]).partition("%")[0])


def _client_cert(value: str, method: Method) -> ClientCert:
    try:
        cert = ClientCert(value)
    except ValueError:
        raise RefusedRecord(f'invalid value for clientcert: "{value}"') from None
    if cert is ClientCert.VERIFY_CA and method is Method.CERT:
        raise RefusedRecord('clientcert only accepts "verify-full" when using "cert" authentication')
    return cert


def _refuse_option(name: str, methods: str) -> NoReturn:
    raise RefusedRecord(f'authentication option "{name}" is only valid for authentication methods {methods}')


def _refuse_group(name: Name) -> NoReturn:
    raise RefusedRecord(
        f'"{name.text}" is not supported: no roles here have members',
        "List the names, or put them into a file and give @file.",
    )
