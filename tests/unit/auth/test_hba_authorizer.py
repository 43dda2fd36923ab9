"""What `HbaAuthorizer` asks of clients, and what it says to those who answer wrong."""

from __future__ import annotations

import os
import pwd
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import scramp
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from walsender.auth import (
    ClientCert,
    ClientName,
    ConnectionRequest,
    HbaAuthorizer,
    HbaLine,
    HbaRules,
    IAuthenticationClient,
    IAuthorizer,
    IdentMaps,
    Method,
    PlainPassword,
    StoredPasswords,
    TlsInfo,
    Userlist,
)
from walsender.auth.hba import ConnectionType
from walsender.auth.names import Name
from walsender.auth.scram import derive_verifier
from walsender.errors import InvalidMessage, WalsenderError
from walsender.wire import InvalidMessageLength

if TYPE_CHECKING:
    from walsender.wire import AuthenticationRequest, MessageRules

USER = pwd.getpwuid(os.getuid()).pw_name
REQUEST = ConnectionRequest(ip_address("192.0.2.1"), "standby")
END_POINT = bytes(range(32))
TLS = TlsInfo(verified=True, common_name="standby", distinguished_name="CN=standby,O=x", authorities=True)
USERS = Userlist({"standby": derive_verifier(b"pencil", b"salt"), "plain": PlainPassword("secret")})
PASSWORDS = StoredPasswords(USERS)


def line(method: Method, **more: Any) -> HbaLine:
    """Return a line that matches everybody."""
    everybody = (ip_network("0.0.0.0/0"),)
    names = (Name("all"), Name("replication"))
    return HbaLine(
        ConnectionType.HOST, names, names[:1], everybody, method, file="/etc/pg_hba.conf", number=7, **more
    )


@implementer(IAuthenticationClient)
class ScriptedClient:
    """
    Answers by a script.

    :param answers: what it says, in order; an error is raised instead.
    :ivar asked: code and data of what it was asked.
    """

    def __init__(self, *answers: bytes | WalsenderError) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[int, bytes]] = []

    def send(self, message: AuthenticationRequest) -> None:
        """See `IAuthenticationClient`."""
        self.asked.append((message.code, message.data))

    async def receive(self, rules: MessageRules) -> bytes:
        """See `IAuthenticationClient`."""
        answer = self._answers.pop(0)
        if isinstance(answer, WalsenderError):
            raise answer
        return answer


@implementer(IAuthenticationClient)
class ScramClient:
    """
    Answers as scramp's client does.

    :ivar offered: the mechanisms.
    """

    def __init__(self, password: str, end_point: bytes | None = None) -> None:
        binding = None if end_point is None else ("tls-server-end-point", end_point)
        mechanism = "SCRAM-SHA-256" if end_point is None else "SCRAM-SHA-256-PLUS"
        self._client = scramp.ScramClient([mechanism], "x", password, channel_binding=binding)
        self._next = b""
        self.codes: list[int] = []
        self.offered: list[bytes] = []

    def send(self, message: AuthenticationRequest) -> None:
        """See `IAuthenticationClient`."""
        self.codes.append(message.code)
        if message.code == 10:
            *self.offered, nothing, end = message.data.split(b"\0")
            assert nothing == end == b""
            first = self._client.get_client_first().encode()
            name = self._client.mechanism_name.encode()
            self._next = name + b"\0" + len(first).to_bytes(4) + first
        elif message.code == 11:
            self._client.set_server_first(message.data.decode())
            self._next = self._client.get_client_final().encode()
        else:
            self._client.set_server_final(message.data.decode())

    async def receive(self, rules: MessageRules) -> bytes:
        """See `IAuthenticationClient`."""
        return self._next


class AuthorizerTestCase(SynchronousTestCase):
    """Asks an authorizer of one line."""

    def authorize(
        self, rule: HbaLine | None, client: Any = None, request: ConnectionRequest = REQUEST
    ) -> WalsenderError | None:
        """Return the error, or that there is none."""
        rules = HbaRules(() if rule is None else (rule,))
        authorizer = HbaAuthorizer(rules, IdentMaps(), PASSWORDS, maybeDeferred)
        verifyObject(IAuthorizer, authorizer)
        result = Deferred.fromCoroutine(authorizer.authenticate(request, client or ScriptedClient()))
        failures: list[Any] = []
        result.addErrback(failures.append)
        self.assertTrue(result.called)
        if not failures:
            return None
        error = failures[0].value
        assert isinstance(error, WalsenderError), failures[0].getTraceback()
        self.assertNotIn("pencil", f"{error.message}{error.detail}{error.log_detail}{error!r}")
        return error

    def assertRefused(
        self, error: WalsenderError | None, sqlstate: str, text: str, log_detail: str | None = None
    ) -> None:
        """Check what the client is told, and what the log is."""
        assert error is not None, "let in"
        self.assertEqual((error.sqlstate, error.message), (sqlstate, text))
        if log_detail is None:
            self.assertIsNone(error.log_detail)
        else:
            self.assertEqual(log_detail, error.log_detail)


WHERE = 'Connection matched file "/etc/pg_hba.conf" line 7'


class LineTests(AuthorizerTestCase):
    """Lines that ask nothing of the client."""

    def test_trust(self) -> None:
        """Everybody is let in, and not asked."""
        client = ScriptedClient()
        self.assertIsNone(self.authorize(line(Method.TRUST), client))
        self.assertEqual([], client.asked)

    def test_nobody(self) -> None:
        """Who matches no line is told which kind of connection it was."""
        start = 'host "192.0.2.1", user "standby"'
        for request, text in (
            (REQUEST, f"replication connection from {start}, no encryption"),
            (replace(REQUEST, tls=TLS), f"replication connection from {start}, SSL encryption"),
            (replace(REQUEST, replication=False, database="d"), f'{start}, database "d", no encryption'),
        ):
            self.assertRefused(
                self.authorize(None, request=request), "28000", f"no pg_hba.conf entry for {text}"
            )

    def test_reject(self) -> None:
        """Who matches a reject line is told so."""
        start = 'for host "192.0.2.1", user "standby"'
        for request, text in (
            (REQUEST, f"replication connection {start}, no encryption"),
            (
                replace(REQUEST, replication=False, database="d", tls=TLS),
                f'connection {start}, database "d", SSL encryption',
            ),
        ):
            error = self.authorize(line(Method.REJECT), request=request)
            self.assertRefused(error, "28000", f"pg_hba.conf rejects {text}")

    def test_whoMayReplicate(self) -> None:
        """Whoever came in by a line for replication, and nobody else."""
        authorizer = HbaAuthorizer(HbaRules(()), IdentMaps(), PASSWORDS, maybeDeferred)
        self.assertTrue(authorizer.may_replicate(REQUEST))
        self.assertFalse(authorizer.may_replicate(replace(REQUEST, replication=False)))

    def test_whoMayAdminister(self) -> None:
        """Who would be let in for replication too, and has been asked as much for the console."""
        console = replace(REQUEST, replication=False, database="walsender")
        for first, second, expected in (
            (line(Method.TRUST), line(Method.TRUST), True),
            (line(Method.SCRAM_SHA_256), line(Method.SCRAM_SHA_256), True),
            (line(Method.SCRAM_SHA_256), line(Method.TRUST), True),
            (line(Method.TRUST), line(Method.SCRAM_SHA_256), False),
            (line(Method.TRUST), line(Method.REJECT), False),
            (line(Method.TRUST), line(Method.TRUST, client_cert=ClientCert.VERIFY_FULL), False),
            (line(Method.PEER), line(Method.PEER, map_name="other"), False),
            (line(Method.TRUST), None, False),
        ):
            lines = [replace(first, databases=(Name("all"),))]
            if second is not None:
                lines.append(replace(second, databases=(Name("replication"),)))
            authorizer = HbaAuthorizer(HbaRules(tuple(lines)), IdentMaps(), PASSWORDS, maybeDeferred)
            self.assertIs(expected, authorizer.may_administer(console), (first.method, second))
        authorizer = HbaAuthorizer(
            HbaRules((replace(line(Method.TRUST), databases=(Name("replication"),)),)),
            IdentMaps(),
            PASSWORDS,
            maybeDeferred,
        )
        self.assertFalse(authorizer.may_administer(console), "who is not let in at all")


class ReloadTests(AuthorizerTestCase):
    """Rules that change while a client is asked."""

    def change(self, *after: HbaLine) -> WalsenderError | None:
        """Answer the question for a password when other rules hold already."""
        authorizer = HbaAuthorizer(HbaRules((line(Method.PASSWORD),)), IdentMaps(), PASSWORDS, maybeDeferred)

        @implementer(IAuthenticationClient)
        class Changing(ScriptedClient):
            async def receive(self, rules: MessageRules) -> bytes:
                authorizer.rules = HbaRules(after)
                return b"pencil\0"

        result = Deferred.fromCoroutine(authorizer.authenticate(REQUEST, Changing()))
        errors: list[WalsenderError] = []
        result.addErrback(lambda failure: errors.append(failure.value))
        self.assertTrue(result.called)
        return errors[0] if errors else None

    def test_sameQuestion(self) -> None:
        """Who is still asked the same comes in, whichever line it is."""
        self.assertIsNone(self.change(replace(line(Method.PASSWORD), number=99)))

    def test_otherQuestion(self) -> None:
        """Who would be asked something else now, or is let in no more, does not."""
        text = "the rules of who may come in have changed meanwhile; try again"
        self.assertRefused(self.change(), "28000", text)
        self.assertRefused(self.change(line(Method.REJECT)), "28000", text)
        full = line(Method.PASSWORD, client_cert=ClientCert.VERIFY_FULL)
        self.assertRefused(self.change(full), "28000", text)


class PasswordTests(AuthorizerTestCase):
    """The method ``password``."""

    WRONG = 'password authentication failed for user "{}"'

    def ask(self, answer: bytes, user: str = "standby") -> WalsenderError | None:
        """Answer the question for a password."""
        client = ScriptedClient(answer)
        error = self.authorize(line(Method.PASSWORD), client, replace(REQUEST, user=user))
        self.assertEqual([(3, b"")], client.asked)
        return error

    def test_right(self) -> None:
        """A right password of either kind is let in."""
        self.assertIsNone(self.ask(b"pencil\0"))
        self.assertIsNone(self.ask(b"secret\0", "plain"))

    def test_wrong(self) -> None:
        """A wrong one is not, and the client is told the same if there is no such user."""
        for user, why in (
            ("standby", "Password does not match"),
            ("plain", "Password does not match"),
            ("nobody", "No password is stored"),
        ):
            detail = f'{why} for user "{user}"; {WHERE}'
            self.assertRefused(self.ask(b"wrong\0", user), "28P01", self.WRONG.format(user), detail)

    def test_noPassword(self) -> None:
        """What is no C string, or an empty one."""
        self.assertRefused(self.ask(b"\0"), "28P01", "empty password returned by client")
        for answer in (b"", b"pencil", b"pen\0cil\0", b"\0\0"):
            self.assertRefused(self.ask(answer), "08P01", "invalid password packet size")


class ScramTests(AuthorizerTestCase):
    """The methods ``scram-sha-256`` and ``md5``."""

    def test_right(self) -> None:
        """A right password of either kind is let in, by either name of the method."""
        for method in (Method.SCRAM_SHA_256, Method.MD5):
            for user, password in (("standby", "pencil"), ("plain", "secret")):
                client = ScramClient(password)
                self.assertIsNone(self.authorize(line(method), client, replace(REQUEST, user=user)))
                self.assertEqual([10, 11, 12], client.codes)
                self.assertEqual([b"SCRAM-SHA-256"], client.offered)

    def test_wrong(self) -> None:
        """A wrong one is not, and a user who does not exist is asked the same."""
        for user in ("standby", "plain", "nobody"):
            client = ScramClient("wrong")
            error = self.authorize(line(Method.SCRAM_SHA_256), client, replace(REQUEST, user=user))
            assert error is not None
            text = f'password authentication failed for user "{user}"'
            self.assertEqual((error.sqlstate, error.message), ("28P01", text))
            self.assertEqual([10, 11], client.codes)

    def test_channelBinding(self) -> None:
        """Under TLS the better mechanism is offered too, unless our certificate has no hash."""
        request = replace(REQUEST, tls=TlsInfo(end_point=END_POINT))
        for client in (ScramClient("pencil", END_POINT), ScramClient("pencil")):
            self.assertIsNone(self.authorize(line(Method.SCRAM_SHA_256), client, request))
            self.assertEqual([b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-256"], client.offered)
        error = self.authorize(line(Method.SCRAM_SHA_256), ScramClient("pencil", bytes(32)), request)
        self.assertRefused(error, "28000", "SCRAM channel binding check failed")
        client = ScramClient("pencil")
        self.assertIsNone(self.authorize(line(Method.SCRAM_SHA_256), client, replace(REQUEST, tls=TlsInfo())))
        self.assertEqual([b"SCRAM-SHA-256"], client.offered)

    def test_withoutInitialResponse(self) -> None:
        """A client may name the mechanism only, and is asked with nothing."""
        client = ScriptedClient(b"SCRAM-SHA-256\0\xff\xff\xff\xff", b"")
        error = self.authorize(line(Method.SCRAM_SHA_256), client)
        self.assertRefused(error, "08P01", "malformed SCRAM message")
        self.assertEqual((11, b""), client.asked[1])

    def test_badFirstMessages(self) -> None:
        """What is no choice of a mechanism with a first message."""
        for answer, text in (
            (b"SCRAM-SHA-256", "invalid string in message"),
            (b"SCRAM-SHA-256\0", "insufficient data left in message"),
            (b"SCRAM-SHA-256\0\0\0\0\5n,,", "insufficient data left in message"),
            (b"SCRAM-SHA-256\0\xff\xff\xff\xfe", "insufficient data left in message"),
            (b"SCRAM-SHA-256\0\xff\xff\xff\xffx", "invalid message format"),
            (b"PLAIN\0", "client selected an invalid SASL authentication mechanism"),
        ):
            self.assertRefused(
                self.authorize(line(Method.SCRAM_SHA_256), ScriptedClient(answer)), "08P01", text
            )

    def test_longMessage(self) -> None:
        """A message beyond any length is a wrong answer, as in PostgreSQL."""
        client = ScriptedClient(InvalidMessageLength("invalid message length"))
        error = self.authorize(line(Method.SCRAM_SHA_256), client)
        text = 'password authentication failed for user "standby"'
        detail = f'Password does not match for user "standby"; {WHERE}; invalid message length'
        self.assertRefused(error, "28P01", text, detail)

    def test_otherErrors(self) -> None:
        """Any other error of the client's is its own."""
        error = InvalidMessage("x")
        self.assertIs(error, self.authorize(line(Method.SCRAM_SHA_256), ScriptedClient(error)))


class PeerTests(AuthorizerTestCase):
    """The method ``peer``."""

    def peer(self, user: str, user_id: int | None, **more: Any) -> WalsenderError | None:
        """Come from a process of a user of this machine."""
        request = ConnectionRequest(None, user, peer_uid=user_id)
        rule = replace(line(Method.PEER, **more), connection_type=ConnectionType.LOCAL, address=None)
        return self.authorize(rule, request=request)

    def test_peer(self) -> None:
        """Whose name is the role's is let in; others, and users who do not exist, are not."""
        self.assertIsNone(self.peer(USER, os.getuid()))
        text = 'Peer authentication failed for user "standby"'
        why = f"provided user name (standby) and authenticated user name ({USER}) do not match"
        self.assertRefused(self.peer("standby", os.getuid()), "28000", text, f"{why}; {WHERE}")
        for user_id in (None, 2**31 - 7):
            why = f"local user with ID {user_id} does not exist"
            self.assertRefused(self.peer("standby", user_id), "28000", text, f"{why}; {WHERE}")


class CertificateTests(AuthorizerTestCase):
    """The method ``cert`` and the option ``clientcert``."""

    def show(
        self, tls: TlsInfo | None, method: Method = Method.CERT, user: str = "standby", **more: Any
    ) -> WalsenderError | None:
        """Come with a certificate."""
        options = {"client_cert": ClientCert.VERIFY_FULL, **more}
        client = ScramClient("pencil") if method is Method.SCRAM_SHA_256 else None
        return self.authorize(line(method, **options), client, replace(REQUEST, tls=tls, user=user))

    def test_cert(self) -> None:
        """Whose certificate has the role's name is let in."""
        self.assertIsNone(self.show(TLS))
        self.assertIsNone(self.show(TLS, user="CN=standby,O=x", client_name=ClientName.DN))
        text = 'certificate authentication failed for user "other"'
        why = "provided user name (other) and authenticated user name (standby) do not match"
        self.assertRefused(self.show(TLS, user="other"), "28000", text, f"{why}; {WHERE}")
        nameless = replace(TLS, common_name=None)
        why = "client certificate contains no user name"
        self.assertRefused(self.show(nameless, user="other"), "28000", text, f"{why}; {WHERE}")

    def test_none(self) -> None:
        """Who shows none is told so; where none can be checked, that."""
        for cert in ClientCert:
            for method in (Method.CERT, Method.TRUST, Method.SCRAM_SHA_256):
                error = self.show(TlsInfo(authorities=True), method, client_cert=cert)
                self.assertRefused(error, "28000", "connection requires a valid client certificate", WHERE)
                error = self.show(TlsInfo(), method, client_cert=cert)
                text = "client certificates can only be checked if a root certificate store is available"
                self.assertRefused(error, "F0000", text, WHERE)

    def test_verifyCa(self) -> None:
        """``clientcert=verify-ca`` looks at no name."""
        self.assertIsNone(self.show(TLS, Method.TRUST, "other", client_cert=ClientCert.VERIFY_CA))

    def test_verifyFull(self) -> None:
        """``clientcert=verify-full`` looks at the name after the method is content."""
        self.assertIsNone(self.show(TLS, Method.TRUST))
        self.assertIsNone(self.show(TLS, Method.SCRAM_SHA_256))
        other = replace(TLS, common_name="other")
        why = "provided user name (standby) and authenticated user name (other) do not match"
        for method, sqlstate, text in (
            (Method.TRUST, "28000", '"trust" authentication failed for user "standby"'),
            (Method.SCRAM_SHA_256, "28P01", 'password authentication failed for user "standby"'),
        ):
            self.assertRefused(self.show(other, method), sqlstate, text, f"{why}; {WHERE}")
