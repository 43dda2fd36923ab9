"""What is asked of a client before it is in: the exchange, whatever the method, and every way it can end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from protocol_helpers import READY, Client, kinds, message, query, startup_packet
from startup_helpers import AUTHENTICATION_OK, StartupTestCase
from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer
from zope.interface.verify import verifyObject

from walsender.auth import (
    ConnectionRequest,
    IAuthenticationClient,
    IAuthorizer,
    LocalAuthorizer,
)
from walsender.errors import InvalidAuthorization
from walsender.sender.entrance import Entrance
from walsender.sender.states import State
from walsender.wire import PASSWORD_MESSAGES, SASL_MESSAGES, AuthenticationRequest

if TYPE_CHECKING:
    from walsender.wire import MessageRules

ASK = bytes.fromhex("52 00000008 00000003")  # AuthenticationCleartextPassword
PASSWORD = message(b"p", b"secret\0")


@implementer(IAuthorizer)
class Asking:
    """
    Asks for passwords until the right one comes, and keeps them.

    :ivar first: what it waits for before it asks.
    :ivar heard: what clients have said.
    :ivar requests: who they are.
    :ivar cancelled: how often nobody waited for the result any more.
    """

    def __init__(self, rules: MessageRules = PASSWORD_MESSAGES) -> None:
        self.rules = rules
        self.first: Deferred[None] | None = None
        self.heard: list[bytes] = []
        self.requests: list[ConnectionRequest] = []
        self.cancelled = 0

    async def authenticate(self, request: ConnectionRequest, client: IAuthenticationClient) -> None:
        """See `IAuthorizer`."""
        self.requests.append(request)
        try:
            if self.first is not None:
                await self.first
            while self.heard[-1:] != [b"secret\0"]:
                client.send(AuthenticationRequest(3))
                self.heard.append(await client.receive(self.rules))
                if self.heard[-1] == b"refuse\0":
                    raise InvalidAuthorization("go away")
                if self.heard[-1] == b"stumble\0":
                    raise ZeroDivisionError
        except CancelledError:
            self.cancelled += 1
            raise

    def may_replicate(self, request: ConnectionRequest) -> bool:
        """See `IAuthorizer`."""
        return True

    def may_administer(self, request: ConnectionRequest) -> bool:
        """See `IAuthorizer`."""
        return True


class ExchangeTestCase(StartupTestCase):
    """Connects to a server that asks."""

    def asked(self, rules: MessageRules = PASSWORD_MESSAGES, **options: Any) -> tuple[Asking, Client]:
        """Return the authorizer and a client that has been asked."""
        authorizer = Asking(rules)
        client = self.server(authorizer=authorizer, **options).connect()
        self.assertEqual(ASK, client.start())
        return authorizer, client


class ExchangeTests(ExchangeTestCase):
    """What is said, in order."""

    def test_interfaces(self) -> None:
        """Authorizers and the client that they see are what their interfaces say."""
        verifyObject(IAuthorizer, LocalAuthorizer())
        verifyObject(IAuthorizer, Asking())
        protocol = self.server().connect().protocol
        verifyObject(IAuthenticationClient, Entrance(protocol, protocol.factory))

    def test_password(self) -> None:
        """Who answers right is greeted, and no sooner."""
        authorizer, client = self.asked()
        self.assertEqual([State.STARTUP, State.AUTHENTICATION], client.states)
        client.send(PASSWORD)
        greeting = client.receive()
        self.assertTrue(greeting.startswith(AUTHENTICATION_OK))
        self.assertTrue(greeting.endswith(READY))
        self.assertEqual([b"secret\0"], authorizer.heard)
        self.assertEqual([State.STARTUP, State.AUTHENTICATION, State.COMMAND], client.states)

    def test_severalQuestions(self) -> None:
        """An exchange has as many steps as the method wants."""
        _, client = self.asked()
        client.send(message(b"p", b"wrong\0"))
        self.assertEqual(ASK, client.receive())
        client.send(PASSWORD)
        self.assertTrue(client.receive().startswith(AUTHENTICATION_OK))

    def test_byteByByte(self) -> None:
        """The same, each byte by itself."""
        authorizer, client = self.asked()
        client.send(*(bytes([byte]) for byte in PASSWORD))
        self.assertTrue(client.receive().startswith(AUTHENTICATION_OK))
        self.assertEqual([b"secret\0"], authorizer.heard)

    def test_allAtOnce(self) -> None:
        """What comes early is read when it is its turn: the password, and a query behind it."""
        client = self.server(authorizer=Asking()).connect()
        client.send(startup_packet() + PASSWORD + query("SHOW wal_segment_size"))
        answer = client.receive()
        self.assertTrue(answer.startswith(ASK + AUTHENTICATION_OK))
        self.assertTrue(kinds(answer).endswith(b"ZTDCZ"))

    def test_request(self) -> None:
        """An authorizer knows who wants what."""
        authorizer, _ = self.asked()
        (request,) = authorizer.requests
        self.assertEqual(("127.0.0.1", "postgres", True), (request.host, request.user, request.replication))
        self.assertIsNone(request.tls)
        client = self.server(authorizer=authorizer).connect()
        client.start(replication="false", database="d")
        self.assertEqual(("d", False), (authorizer.requests[1].database, authorizer.requests[1].replication))


class RefusalTests(ExchangeTestCase):
    """Who is not let in."""

    def test_otherMessages(self) -> None:
        """Anything but an answer is refused by its type; a Terminate too."""
        for rules, what in ((PASSWORD_MESSAGES, "password"), (SASL_MESSAGES, "SASL")):
            for kind in (b"Q", b"X", b"d"):
                _, client = self.asked(rules)
                client.send(message(kind, b"x\0"))
                text = f"expected {what} response, got message type {kind[0]}"
                self.assertRefused(client, client.receive(), "08P01", text)

    def test_longMessages(self) -> None:
        """What is longer than a password can be is not waited for: nobody is told."""
        for rules, length in ((PASSWORD_MESSAGES, 65536), (SASL_MESSAGES, 1025), (PASSWORD_MESSAGES, 3)):
            _, client = self.asked(rules)
            client.send(b"p" + length.to_bytes(4))
            self.assertEqual(b"", client.receive())
            self.assertTrue(client.is_closed)

    def test_longestMessages(self) -> None:
        """The longest that is permitted is read."""
        for rules, length in ((PASSWORD_MESSAGES, 65535), (SASL_MESSAGES, 1024)):
            authorizer, client = self.asked(rules)
            client.send(message(b"p", bytes(length - 4)))
            self.assertEqual(ASK, client.receive())
            self.assertEqual([bytes(length - 4)], authorizer.heard)

    def test_refused(self) -> None:
        """What the authorizer says is what the client is told, and all of it."""
        _, client = self.asked()
        client.send(message(b"p", b"refuse\0"))
        answer = client.receive()
        self.assertEqual(b"E", kinds(answer))
        self.assertRefused(client, answer, "28000", "go away")

    def test_mistake(self) -> None:
        """An authorizer's mistake costs one connection, and is logged."""
        _, client = self.asked()
        client.send(message(b"p", b"stumble\0"))
        self.assertRefused(client, client.receive(), "XX000", "internal error")
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))


class EndTests(ExchangeTestCase):
    """Every way in which the wait can end cancels it."""

    def test_endOfFile(self) -> None:
        """A client that closes is let go without a word."""
        authorizer, client = self.asked()
        client.transport.deliver_eof()
        self.assertEqual(b"", client.receive())
        self.assertTrue(client.is_closed)
        self.assertEqual(1, authorizer.cancelled)

    def test_connectionLost(self) -> None:
        """A connection that breaks takes its exchange with it."""
        authorizer, client = self.asked()
        client.transport.lose()
        self.assertEqual(1, authorizer.cancelled)
        self.assertIs(State.CLOSED, client.states[-1])

    def test_timeout(self) -> None:
        """One time for all steps together, counted from the first byte; nobody is told."""
        authorizer = Asking()
        server = self.server(authorizer=authorizer, authentication_timeout=60)
        client = server.connect()
        server.reactor.advance(30)
        client.start()
        server.reactor.advance(29)
        client.send(message(b"p", b"wrong\0"))
        self.assertEqual(ASK, client.receive())
        server.reactor.advance(1)
        self.assertEqual(b"", client.receive())
        self.assertTrue(client.is_closed)
        self.assertEqual(1, authorizer.cancelled)
        self.assertEqual([], server.reactor.getDelayedCalls())

    def test_inTime(self) -> None:
        """Who is in has no such time any more."""
        authorizer = Asking()
        server = self.server(authorizer=authorizer, authentication_timeout=60)
        client = server.connect()
        client.start()
        client.send(PASSWORD)
        client.receive()
        server.reactor.advance(61)
        self.assertFalse(client.is_closed)

    def test_shutDown(self) -> None:
        """A server that stops does not wait for answers."""
        authorizer, client = self.asked()
        client.protocol.factory.shut_down()
        self.assertEqual(b"", client.receive())
        self.assertTrue(client.is_closed)
        self.assertEqual(1, authorizer.cancelled)


class WaitingTests(ExchangeTestCase):
    """While the authorizer waits for somebody else than the client."""

    def test_inputIsHeld(self) -> None:
        """Nothing is read meanwhile, and little is kept."""
        authorizer = Asking()
        authorizer.first = first = Deferred()
        client = self.server(authorizer=authorizer).connect()
        client.send(startup_packet() + PASSWORD)
        self.assertEqual(b"", client.receive())
        self.assertTrue(client.transport.reading)
        client.send(query("x" * (64 << 10)))
        self.assertFalse(client.transport.reading)
        first.callback(None)
        self.assertTrue(client.receive().startswith(ASK + AUTHENTICATION_OK))
        self.assertTrue(client.transport.reading)

    def test_connectionLost(self) -> None:
        """Who goes meanwhile takes nothing with him but the wait."""
        authorizer = Asking()
        authorizer.first = first = Deferred()
        server = self.server(authorizer=authorizer)
        client = server.connect()
        client.start()
        client.transport.lose()
        self.assertEqual(1, authorizer.cancelled)
        first.callback(None)
        self.assertEqual([], list(server.factory.slot_table))

    def test_placeIsTakenLate(self) -> None:
        """Who is not in yet has no place among the walsenders, so that strangers cannot use them up."""
        _, client = self.asked(max_wal_senders=1)
        self.assertEqual([], list(client.protocol.factory.slot_table))
        client.send(PASSWORD)
        client.receive()
        self.assertEqual(1, len(list(client.protocol.factory.slot_table)))
