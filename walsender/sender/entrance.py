"""
`Entrance`: a client's way in, from its first byte to the session.

Packets come first (may we encrypt? cancel! start), then what the authorizer asks of the
client.  Encryption begins under our feet: from then on the transport gives and takes what
is inside.  Nothing that came before may be taken for that (CVE-2021-23214).

The authorizer is a coroutine.  While it waits for anything but the client,
nothing is read; where it does not wait at all (``trust``) the session begins in the
same turn.  When the connection ends, so does the coroutine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from walsender.auth import IAuthenticationClient
from walsender.errors import WalsenderError
from walsender.sender.peer import error_text
from walsender.sender.startup import Session, open_session
from walsender.wire import (
    CancelRequest,
    PasswordMessage,
    SSLRequest,
    StartupMessage,
    decode_startup_packet,
    unencrypted_data,
)

if TYPE_CHECKING:
    from twisted.internet.interfaces import IPushProducer

    from walsender.auth import TlsInfo
    from walsender.sender.connection_log import ConnectionLog
    from walsender.sender.factory import WalSenderFactory
    from walsender.sender.interfaces import IClientTransport, IServerTls
    from walsender.wire import AuthenticationRequest, FrontendBuffer, GSSENCRequest, MessageRules


_TLS_HANDSHAKE: Final = 0x16  # as the first byte of a length it would be far beyond any packet's
_ALPN: Final = b"postgresql"
_NO_ALPN: Final = "received direct SSL connection request without ALPN protocol negotiation extension"


class IEntranceHost(Protocol):
    """What the entrance needs of the protocol that it belongs to."""

    transport: IClientTransport
    log: ConnectionLog

    def advance(self, event: type) -> None:
        """Move the state machine by a message or an event."""

    def input_wanted(self) -> None:
        """Input that was held back may be processed."""

    def let_in(self, session: Session) -> None:
        """The client is greeted, and its commands may come."""

    def failed(self, failure: Failure) -> None:
        """It cannot go on so: tell the client, or the log."""

    def close(self) -> None:
        """End the connection."""


@implementer(IAuthenticationClient)
class Entrance:
    """One client's way in."""

    def __init__(self, host: IEntranceHost, factory: WalSenderFactory) -> None:
        self._host = host
        self._factory = factory
        self._begun = self._ssl_done = self._gss_done = False
        self._direct = False
        self._tls: IServerTls | None = None  # with which the connection is encrypted, or about to be
        self._handshaking: IServerTls | None = None
        self._tls_info: TlsInfo | None = None
        self._opening: Deferred[None] | None = None
        self._rules: MessageRules | None = None  # of the message that the authorizer waits for
        self._answer: Deferred[bytes] | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether something else than the client's input is waited for."""
        return self._opening is not None and self._answer is None

    def process(self, buffer: FrontendBuffer) -> bool:
        """
        Take one packet or message from *buffer*; return whether there was one.

        :raises WalsenderError: it is refused.
        """
        return self._process_packet(buffer) if self._opening is None else self._process_answer(buffer)

    def stop(self) -> None:
        """Wait for nothing any more; harmless when repeated."""
        if self._opening is not None:
            self._opening.cancel()

    def connection_lost(self, reason: Failure) -> None:
        """Say why encryption did not come about, if that was it."""
        if self._handshaking is not None:
            self._host.log.ended(f"could not accept SSL connection: {error_text(reason.value)}")

    # Packets

    def _process_packet(self, buffer: FrontendBuffer) -> bool:
        if not self._begun and buffer.peek_type() == _TLS_HANDSHAKE and (tls := self._tls_here) is not None:
            self._begun = self._direct = True
            self._encrypt(tls, buffer.take_all())
            return True
        packet = buffer.next_packet()
        if packet is None:
            return False
        self._begun = True
        request = decode_startup_packet(packet, ssl_done=self._ssl_done, gss_done=self._gss_done)
        if isinstance(request, StartupMessage):
            self._host.advance(StartupMessage)
            self._open(request)
        elif isinstance(request, CancelRequest):
            self._factory.cancel(request)
            self._host.close()
        else:
            self._host.advance(type(request))
            self._answer_request(request, buffer)
        return True

    def _answer_request(self, request: SSLRequest | GSSENCRequest, buffer: FrontendBuffer) -> None:
        tls = None
        if isinstance(request, SSLRequest):
            self._ssl_done = True
            tls = self._tls_here
        else:
            self._gss_done = True
        early = buffer.take_all()
        if tls is None:
            self._host.transport.write(b"N")
        else:
            self._gss_done = True
            self._host.transport.write(b"S")
            self._encrypt(tls)
        if early:
            raise unencrypted_data(request)

    # Encryption

    @property
    def _tls_here(self) -> IServerTls | None:
        """What to encrypt with; nothing on a unix socket, which nobody can listen to, or if that is done."""
        if self._tls is not None or isinstance(self._host.transport.getPeer(), UNIXAddress):
            return None
        return self._factory.tls

    def _encrypt(self, tls: IServerTls, early: bytes = b"") -> None:
        """
        Begin TLS.

        :param early: the beginning of the handshake, if it is here already.
        """
        self._tls = self._handshaking = tls
        transport = self._host.transport
        # Nobody may pause the reading that the handshake needs; and whoever does not shake hands
        # in time is stopped by authentication_timeout.
        transport.unregisterProducer()
        transport.startTLS(tls)
        if early:
            transport.protocol.dataReceived(early)

    def handshake_completed(self, producer: IPushProducer) -> None:
        """
        The connection is encrypted.

        :param producer: whom the transport tells that its buffer is full.
        """
        tls, self._handshaking = self._handshaking, None
        assert tls is not None, "who completes a handshake has begun it"
        transport = self._host.transport
        connection: Any = transport.getHandle()
        if self._direct and connection.get_alpn_proto_negotiated() != _ALPN:
            self._host.log.ended(_NO_ALPN)
            self._host.close()
            return
        try:
            self._tls_info = tls.info(connection)
        except Exception:  # noqa: BLE001 (who has called cannot do anything about it)
            self._host.failed(Failure())
            return
        transport.registerProducer(producer, True)

    # Authentication

    def _open(self, message: StartupMessage) -> None:
        opening = open_session(
            self._factory, message, self._host.transport, self, self._tls_info, self._host.log
        )
        session = Deferred.fromCoroutine(opening)
        # Not before it has begun to wait: a session that is there at once has no use for it.
        self._opening = session.addCallbacks(self._host.let_in, self._refused)

    def _refused(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._host.failed(failure)

    def _process_answer(self, buffer: FrontendBuffer) -> bool:
        answer, rules = self._answer, self._rules
        assert answer is not None, "input is held back unless it is waited for"
        assert rules is not None, "set together"
        try:
            message = buffer.next_message(rules)
            if message is None:
                return False
        except WalsenderError as error:
            # To the authorizer: what a method says of a message that is too long is its own.
            self._answer = None
            answer.errback(Failure(error))
        else:
            assert isinstance(message, PasswordMessage), "the rules know no other"
            self._host.advance(PasswordMessage)
            self._answer = None
            answer.callback(message.data)
        return True

    # walsender.auth.IAuthenticationClient

    def send(self, message: AuthenticationRequest) -> None:
        """See `IAuthenticationClient`."""
        self._host.transport.write(message.encode())

    async def receive(self, rules: MessageRules) -> bytes:
        """See `IAuthenticationClient`."""
        self._rules = rules
        self._answer = answer = Deferred[bytes]()
        self._host.input_wanted()
        return await answer
