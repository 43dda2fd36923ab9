"""
`Entrance`: a client's way in, from its first byte to the session.

Packets come first (may we encrypt? cancel! start), then what the authorizer asks of the
client.  The authorizer is a coroutine.  While it waits for anything but the client,
nothing is read; where it does not wait at all (``trust``) the session begins in the
same turn.  When the connection ends, so does the coroutine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from walsender.auth import IAuthenticationClient
from walsender.errors import WalsenderError
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
    from walsender.sender.factory import WalSenderFactory
    from walsender.sender.interfaces import IClientTransport
    from walsender.wire import AuthenticationRequest, FrontendBuffer, GSSENCRequest, MessageRules


class IEntranceHost(Protocol):
    """What the entrance needs of the protocol that it belongs to."""

    transport: IClientTransport

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
        self._ssl_done = self._gss_done = False
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

    # Packets

    def _process_packet(self, buffer: FrontendBuffer) -> bool:
        packet = buffer.next_packet()
        if packet is None:
            return False
        request = decode_startup_packet(packet, ssl_done=self._ssl_done, gss_done=self._gss_done)
        if isinstance(request, StartupMessage):
            self._host.advance(StartupMessage)
            self._open(request)
        elif isinstance(request, CancelRequest):
            self._factory.cancel(request)
            self._host.close()
        else:
            self._decline(request, buffer)
        return True

    def _decline(self, request: SSLRequest | GSSENCRequest, buffer: FrontendBuffer) -> None:
        self._host.advance(type(request))
        if isinstance(request, SSLRequest):
            self._ssl_done = True
        else:
            self._gss_done = True
        self._host.transport.write(b"N")
        if buffer.pending:
            raise unencrypted_data(request)

    # Authentication

    def _open(self, message: StartupMessage) -> None:
        session = Deferred.fromCoroutine(open_session(self._factory, message, self._host.transport, self))
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
