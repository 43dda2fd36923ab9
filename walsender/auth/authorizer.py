"""
`HbaAuthorizer`: asks of each client what the first matching line of ``pg_hba.conf`` says.

The client is told no more than PostgreSQL tells it; why, and by which line, is in the log.

Source: PostgreSQL, src/backend/libpq/auth.c, ClientAuthentication, and auth-sasl.c, CheckSASLAuth.
"""

from __future__ import annotations

import pwd
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from zope.interface import implementer

from walsender.auth.few_threads import FewThreads
from walsender.auth.hba import ClientCert, ClientName, Method
from walsender.auth.interfaces import Authenticated, ConnectionRequest, IAuthenticationClient, IAuthorizer
from walsender.auth.scram import ScramExchange, is_password
from walsender.errors import ConfigurationError, InvalidAuthorization, ProtocolViolation
from walsender.wire import PASSWORD_MESSAGES, SASL_MESSAGES, AuthenticationRequest, InvalidMessageLength
from walsender.wire.body import BodyReader

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from twisted.internet.defer import Deferred

    from walsender.auth.hba import HbaLine, HbaRules
    from walsender.auth.ident import IdentMaps
    from walsender.auth.stored_passwords import StoredPasswords

_CLEARTEXT: Final = 3
_SASL, _SASL_CONTINUE, _SASL_FINAL = 10, 11, 12
_NO_INITIAL_RESPONSE: Final = -1
_AT_ONCE: Final = 2  # threads, of each kind of work that a stranger may ask for
MOST_THREADS: Final = 2 * _AT_ONCE
"""How many threads it uses at the same time."""


class InvalidPassword(InvalidAuthorization, sqlstate="28P01"):
    """The password is wrong, or the user is: nobody is told which."""


def no_entry(request: ConnectionRequest) -> InvalidAuthorization:
    """Return the error for a client that no line lets in."""
    if request.replication:
        return InvalidAuthorization(
            f'no pg_hba.conf entry for replication connection from host "{request.host}", '
            f'user "{request.user}", {request.encryption}'
        )
    return InvalidAuthorization(
        f'no pg_hba.conf entry for host "{request.host}", user "{request.user}", '
        f'database "{request.database}", {request.encryption}'
    )


def _rejected(request: ConnectionRequest) -> InvalidAuthorization:
    if request.replication:
        return InvalidAuthorization(
            f'pg_hba.conf rejects replication connection for host "{request.host}", '
            f'user "{request.user}", {request.encryption}'
        )
    return InvalidAuthorization(
        f'pg_hba.conf rejects connection for host "{request.host}", user "{request.user}", '
        f'database "{request.database}", {request.encryption}'
    )


def _asked(line: HbaLine) -> tuple[object, ...]:
    """Return all that a line asks of a client."""
    return line.method, line.client_cert, line.client_name, line.map_name


@implementer(IAuthorizer)
class HbaAuthorizer:
    """
    Lets in whom ``pg_hba.conf`` lets in.

    :ivar rules: who is asked what; as all three, may be replaced at any time.
    :ivar maps: of ``pg_ident.conf``.
    :ivar passwords: of the ``auth_file``.
    :param run_in_thread: calls a function in a thread pool, of which few threads are used.
    """

    def __init__(
        self,
        rules: HbaRules,
        maps: IdentMaps,
        passwords: StoredPasswords,
        run_in_thread: Callable[..., Deferred[Any]],
    ) -> None:
        self.rules = rules
        self.maps = maps
        self.passwords = passwords
        self._hashing = FewThreads(run_in_thread, _AT_ONCE)
        self._looking_up = FewThreads(run_in_thread, _AT_ONCE)

    async def authenticate(self, request: ConnectionRequest, client: IAuthenticationClient) -> Authenticated:
        """See `IAuthorizer`."""
        rules = self.rules
        line = rules.find(request)
        if line is None:
            raise no_entry(request)
        identity = await self._ask(line, request, client)
        if self.rules is not rules:
            # Who has answered what is asked no more may not go on: what it may do is told by the new rules.
            new = self.rules.find(request)
            if new is None or _asked(new) != _asked(line):
                raise InvalidAuthorization("the rules of who may come in have changed meanwhile; try again")
        return Authenticated(line.method.value, identity, f"{line.file}:{line.number}" if line.file else "")

    async def _ask(
        self, line: HbaLine, request: ConnectionRequest, client: IAuthenticationClient
    ) -> str | None:
        """Return who the client has shown to be, before any map; ``None``: it was not asked."""
        identity: str | None = request.user
        where = f'Connection matched file "{line.file}" line {line.number}'
        if line.client_cert is not None:
            _check_certificate(request, where)
        match line.method:
            case Method.REJECT:
                raise _rejected(request)
            case Method.PASSWORD:
                await self._password(request, client, where)
            case Method.SCRAM_SHA_256 | Method.MD5:
                # Hashes of md5 are not stored here; PostgreSQL too uses SCRAM for who has a verifier.
                await self._scram(request, client, where)
            case Method.PEER:
                identity = await self._peer(line, request, where)
            case Method.CERT:
                identity = None if request.tls is None else request.tls.distinguished_name
            case Method.TRUST:
                identity = None
        if line.client_cert is ClientCert.VERIFY_FULL:
            self._check_name(line, request, where)
        return identity

    def may_replicate(self, request: ConnectionRequest) -> bool:
        """See `IAuthorizer`: whoever a line for ``replication`` has let in."""
        return request.replication

    def may_administer(self, request: ConnectionRequest) -> bool:
        """
        See `IAuthorizer`: whoever would be let in for replication too, and has shown as much for it.

        A user whom a line for the console lets in without a password must not get what another line
        gives for one only.
        """
        mine, other = self.rules.find(request), self.rules.find(replace(request, replication=True))
        if mine is None or other is None or other.method is Method.REJECT:
            return False
        asks_nothing = other.method is Method.TRUST and other.client_cert is None
        return asks_nothing or _asked(other) == _asked(mine)

    async def _password(self, request: ConnectionRequest, client: IAuthenticationClient, where: str) -> None:
        client.send(AuthenticationRequest(_CLEARTEXT))
        data = await client.receive(PASSWORD_MESSAGES)
        password, end, rest = data.partition(b"\0")
        if not end or rest:
            raise ProtocolViolation("invalid password packet size")
        if not password:
            raise InvalidPassword("empty password returned by client")
        verifier, real = self.passwords.find(request.user)
        # Computed for nobody too, which takes as long.
        right = await self._hashing.run(is_password, verifier, password)
        if not (right and real):
            raise _wrong_password(request, real, where)

    async def _scram(self, request: ConnectionRequest, client: IAuthenticationClient, where: str) -> None:
        verifier, real = self.passwords.find(request.user)
        end_point = None if request.tls is None else request.tls.end_point
        exchange = ScramExchange(verifier, doomed=not real, end_point=end_point)
        offer = b"".join(mechanism.encode() + b"\0" for mechanism in exchange.mechanisms)
        client.send(AuthenticationRequest(_SASL, offer + b"\0"))
        try:
            first = BodyReader(await client.receive(SASL_MESSAGES))
            exchange.select(first.string())
            length = first.int32()
            data = None if length == _NO_INITIAL_RESPONSE else first.octets(length)
            first.end()
            while (step := exchange.receive(data)) is not None and not step.done:
                client.send(AuthenticationRequest(_SASL_CONTINUE, step.data))
                data = await client.receive(SASL_MESSAGES)
        except InvalidMessageLength as error:
            raise _wrong_password(request, real, f"{where}; {error.message}") from None
        if step is None:
            raise _wrong_password(request, real, where)
        client.send(AuthenticationRequest(_SASL_FINAL, step.data))

    async def _peer(self, line: HbaLine, request: ConnectionRequest, where: str) -> str:
        name = None
        if request.peer_uid is not None:
            name = await self._looking_up.run(_user_name, request.peer_uid)
        if not isinstance(name, str):
            why = f"local user with ID {request.peer_uid} does not exist"
        elif self.maps.permits(line.map_name, name, request.user):
            return name
        else:
            why = _no_match(line, name, request)
        text = f'Peer authentication failed for user "{request.user}"'
        raise InvalidAuthorization(text, log_detail=f"{why}; {where}")

    def _check_name(self, line: HbaLine, request: ConnectionRequest, where: str) -> None:
        """Compare the certificate's name with the role's."""
        tls = request.tls
        assert tls is not None, "a certificate has been asked for"
        name = tls.common_name if line.client_name is ClientName.CN else tls.distinguished_name
        if not name:
            why = "client certificate contains no user name"
        elif self.maps.permits(line.map_name, name, request.user):
            return
        else:
            why = _no_match(line, name, request)
        detail = f"{why}; {where}"
        match line.method:
            case Method.CERT:
                text = f'certificate authentication failed for user "{request.user}"'
            case Method.TRUST:
                text = f'"trust" authentication failed for user "{request.user}"'
            case _:
                text = f'password authentication failed for user "{request.user}"'
                raise InvalidPassword(text, log_detail=detail)
        raise InvalidAuthorization(text, log_detail=detail)


class NoAuthorities(ConfigurationError):
    """A line of ``pg_hba.conf`` wants certificates, and there is nothing to check them with."""


def _check_certificate(request: ConnectionRequest, where: str) -> None:
    tls = request.tls
    if tls is None or not tls.authorities:
        text = "client certificates can only be checked if a root certificate store is available"
        raise NoAuthorities(text, log_detail=where)
    if not tls.verified:
        raise InvalidAuthorization("connection requires a valid client certificate", log_detail=where)


def _wrong_password(request: ConnectionRequest, real: bool, where: str) -> InvalidPassword:
    why = "Password does not match" if real else "No password is stored"
    text = f'password authentication failed for user "{request.user}"'
    return InvalidPassword(text, log_detail=f'{why} for user "{request.user}"; {where}')


def _no_match(line: HbaLine, name: str, request: ConnectionRequest) -> str:
    if line.map_name is None:
        return f"provided user name ({request.user}) and authenticated user name ({name}) do not match"
    return f'no match in usermap "{line.map_name}" for user "{request.user}" authenticated as "{name}"'


def _user_name(user_id: int) -> str | None:
    """Return the name of a user of this machine; asks whatever the system is told to ask, such as LDAP."""
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return None
