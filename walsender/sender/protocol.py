"""
`WalSender`: the protocol that serves one client.

A shell: bytes come in, messages come out of the wire room's buffer, the state
table says whether they are legal, and what answers them is elsewhere (`entrance`,
`command_phase`, `stream`).  Here alone errors become ErrorResponses, and a connection
ends in one of two ways:

* `close` after last words: the transport sends what it has, within a bound;
* `abort` when nothing can be said any more;

and in both cases, and when the peer is gone, `connectionLost` frees everything.

Input (`input_flow`) is held back from the end of a stream until the stream has handed
the transport back, and while a command waits for a disk or for other sessions, or
authentication for anything but the client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ISSLTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from walsender.errors import AdminShutdown, ProtocolViolation, QueryCanceled, WalsenderError
from walsender.sender.command_phase import CommandPhase
from walsender.sender.connection_log import ConnectionLog
from walsender.sender.entrance import Entrance
from walsender.sender.input_flow import InputFlow
from walsender.sender.peer import accept_few, set_tcp_options
from walsender.sender.states import (
    Authenticated,
    IllegalTransition,
    State,
    StreamStarted,
    next_state,
    transitions_of,
)
from walsender.sender.stream import LINGER, Stream
from walsender.wire import (
    CopyData,
    ObsoleteProtocol,
    SilentViolation,
    old_format_error,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsender.replication_slots import HeldSlot
    from walsender.sender.factory import WalSenderFactory
    from walsender.sender.interfaces import IClientTransport, IConversation
    from walsender.sender.startup import Session
    from walsender.wire import FrontendBuffer


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class WalSender(Protocol):
    """
    One client's conversation.

    :ivar state: where it stands.
    :ivar session: the client, once it is let in.
    """

    log: ConnectionLog
    transport: IClientTransport

    def __init__(self, factory: WalSenderFactory) -> None:
        self.factory: WalSenderFactory = factory
        self.state = State.STARTUP
        self._dialect = factory.dialect
        self._transitions = transitions_of(self._dialect)
        self._input = InputFlow(self)
        self.session: Session | None = None
        self._commands: IConversation | None = None
        self._stream: Stream | None = None
        self._entrance: Entrance | None = Entrance(self, factory)  # until the client is in
        self._timer: IDelayedCall | None = None  # authentication_timeout; at the end the bound on last words

    # Twisted's side

    def connectionMade(self) -> None:
        """A client has connected."""
        self.log = ConnectionLog(self.transport, self.factory)
        self._set_timer(
            self.factory.authentication_timeout, self.abort, "canceling authentication due to timeout"
        )
        self.log.received()
        set_tcp_options(self.transport)
        accept_few(self.transport)
        self.factory.connection_made(self)
        self._input.begin()

    def dataReceived(self, data: bytes) -> None:
        """The client has sent something."""
        if self.state is State.CLOSED:
            return
        if self._stream is not None and not self._stream.ending:
            self._stream.heard()
        self._input.received(data)

    def handshakeCompleted(self) -> None:
        """See `twisted.internet.interfaces.IHandshakeListener`."""
        if self._entrance is not None:
            self._entrance.handshake_completed(self._input)

    def readConnectionLost(self) -> None:
        """The client has closed its half: it will say no more, but may still listen."""
        if self.state is State.COMMAND and self._dialect.reports_lost_client:
            self.log.cut_off(self._input.pending)
            self._client_lost()
        elif self.state is not State.CLOSED:
            if self._stream is not None:
                self.log.ended("unexpected EOF on standby connection")
            self.close()
        else:
            self.transport.loseConnection()  # it has heard our last words

    def writeConnectionLost(self) -> None:
        """See `twisted.internet.interfaces.IHalfCloseableProtocol`; what the client still says is dropped."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone; free everything."""
        if self._entrance is not None:
            self._entrance.connection_lost(reason)
        elif self._stream is not None and reason.check(ConnectionDone):  # TLS knows no closed half
            self.log.ended("unexpected EOF on standby connection")
        # An abort while a stream runs is its consumer's: sending has failed, which is no news.
        if self._stream is not None and not reason.check(ConnectionDone, ConnectionAborted):
            self.log.ended(f"could not receive data from client: {reason.getErrorMessage()}")
        self.state = State.CLOSED
        self._set_timer(None)
        self._stop_waiting()
        self.forget_slots()
        if self.session is not None:
            self.factory.slot_table.free(self.session.entry)
        self.log.disconnected()
        self.factory.connection_lost(self)

    # walsender.sender.entrance.IEntranceHost

    def advance(self, event: type) -> None:
        """Move the state machine by a message or an event of our own."""
        self.state = next_state(self._transitions, self.state, event)

    def input_wanted(self) -> None:
        """Process what was held back, and what comes."""
        self._input.wanted()

    def let_in(self, session: Session) -> None:
        """The client is greeted: commands may come."""
        self.session = session
        self.log.entry = session.entry
        self._entrance = None
        opened = session.console
        self._commands = CommandPhase(self, self.factory, session) if opened is None else opened(self)
        self._set_timer(None)
        self.factory.let_in(self)
        self.advance(Authenticated)
        self.input_wanted()

    def failed(self, failure: Failure) -> None:
        """Tell the client, or only the log, what is wrong; a mistake of ours costs this connection only."""
        error = failure.value
        if not isinstance(error, WalsenderError):
            self.log.mistake(failure)
            error = WalsenderError("internal error")
        if self.is_closed:
            return  # whoever asked is gone
        if isinstance(error, SilentViolation):
            self._violated(error)
        else:
            self.fail(error)

    def close(self) -> None:
        """Read no more; close when the transport has sent what it has, or after a bound."""
        if self._end():
            self.transport.loseConnection()

    def _close_when_heard(self) -> None:
        """
        Say no more, and close when the client has closed too, or after a bound.

        A standby goes on reporting until it has read why it ought not to.  What comes for a socket
        that is closed is answered with a reset, which takes from the client all that it has not
        read yet (RFC 1122, 4.2.2.13).
        """
        transport = self.transport
        if self.factory.stopping or ISSLTransport.providedBy(transport):  # TLS ends by words from both sides
            self.close()
        elif self._end():
            transport.resumeProducing()
            transport.loseWriteConnection()

    def _end(self) -> bool:
        """Let go of everything but the transport; return whether that had not been done."""
        if self.state is State.CLOSED:
            return False
        self.state = State.CLOSED
        if self._stream is None:
            self.transport.unregisterProducer()
        self._stop_waiting()
        self.forget_slots()
        self._set_timer(LINGER, self.transport.abortConnection)
        return True

    # walsender.sender.stream.IStreamHost

    def stream_ended(self) -> None:
        """The transport is ours again; commands may come."""
        self._stream = None
        self.log.statement = b""
        if self.factory.stopping:
            self.shut_down()
            return
        self._input.take_back()

    def stream_closed(self) -> None:
        """The transport is ours again, and the conversation is over."""
        self._stream = None
        self._close_when_heard()

    def abort(self, reason: str) -> None:
        """Drop the connection at once: nothing can be said on it any more."""
        self.log.ended(reason)
        self.state = State.CLOSED
        self._set_timer(None)
        self._stop_waiting()
        self.forget_slots()
        self.transport.abortConnection()

    def forget_slots(self) -> None:
        """Let go of the session's slots: any ERROR ends temporary ones, not only its own end does."""
        if self.session is not None:
            self.factory.slots.let_go(self.session.entry.process_id)

    @property
    def has_input(self) -> bool:
        """Whether something has come that no message has been taken out of yet."""
        return self._input.pending > 0

    def log_error(self, error: WalsenderError, *, fatal: bool = False) -> None:
        """Log, in one line, what the client is told; *fatal*: whatever the error's own severity is."""
        self.log.error(error, "FATAL" if fatal else self._dialect.severity(error))

    # walsender.sender.command_phase.ICommandHost

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is read or written."""
        return self.state is State.CLOSED

    def write(self, data: bytes) -> None:
        """Send *data* outside of streams."""
        self.transport.write(data)

    def begin_stream(self, timeline: int, start: int, slot: HeldSlot | None, *, held: bool) -> None:
        """Hand the transport to a stream from *start*."""
        assert self.session is not None, "only an admitted client has streams"
        factory, source = self.factory, self.factory.source
        self.advance(StreamStarted)
        self._input.leave()
        entry, timeout = self.session.entry, self.session.parameters.wal_sender_timeout
        consumer, clock, timer = factory.consumer(self.transport), factory.reactor, factory.timer
        self._stream = Stream(
            self,
            source,
            self._dialect,
            consumer,
            entry,
            clock,
            timeline,
            start,
            timeout,
            timer,
            slot,
            factory.idle_socket(self.transport, self.dataReceived),
            held=held,
        )
        self.log.started(source.geometry.lsn(start), timeline)
        self._stream.start()

    # The server's side

    @property
    def is_streaming(self) -> bool:
        """Whether WAL flows, or is about to stop."""
        return self._stream is not None

    def shut_down(self, *, drain: bool = False) -> None:
        """
        The server stops: end in good order.

        :param drain: a stream sends all there is, and waits until it is confirmed, first.
            A later call without ends the waiting.

        Who is not let in yet is told nothing: it may be in the middle of a handshake, and never end it.

        Source: PostgreSQL, src/backend/tcop/postgres.c, ProcessInterrupts, of ClientAuthInProgress.
        """
        if self.session is None:
            self.abort("server is shutting down")
        elif self.state is State.CLOSED:
            self.transport.loseConnection()  # nobody is waited for any more
        elif self._stream is None:
            self.fail(AdminShutdown("terminating connection due to administrator command"))
        elif drain:
            self._stream.drain()
        else:
            self._stream.shut_down()

    def give_way(self) -> None:
        """Too many wait to be let in: end at once, and silently, for there may be thousands of us."""
        self.log.silence()
        self.abort("")

    def cancel(self) -> None:
        """The client has asked, with its key, that we end what we do for it."""
        if not self._dialect.cancels:
            return
        if self._stream is None:
            assert self._commands is not None, "who has no session has no key"
            self._commands.cancel()
        elif not self._stream.ending:
            self._stream.refuse(QueryCanceled("canceling statement due to user request"))

    # walsender.sender.input_flow.IInputHost, besides `is_closed`

    @property
    def is_held(self) -> bool:
        """Whether the next message has to wait for something else than the transport."""
        if self._stream is not None:
            return self._stream.ending
        if self._entrance is not None:
            return self._entrance.is_waiting
        return self._commands is not None and self._commands.is_waiting

    def process_one(self, buffer: FrontendBuffer) -> bool:
        """Process one message out of *buffer*; return whether there was one."""
        try:
            if self._entrance is not None:
                return self._entrance.process(buffer)
            return self._process_message(buffer)
        except Exception:  # noqa: BLE001 (the shell's edge)
            self.failed(Failure())
        return True

    def _process_message(self, buffer: FrontendBuffer) -> bool:
        streaming = self._stream is not None
        if self._dialect.closes_at(buffer.peek_type(), streaming=streaming):
            self.close()
            return True
        message = buffer.next_message(self._dialect.message_rules(streaming=streaming))
        if message is None:
            return False
        try:
            state = next_state(self._transitions, self.state, type(message))
        except IllegalTransition:
            raise self._dialect.unexpected_message(message) from None
        if state is State.CLOSED:
            self.close()
        elif self._stream is None:
            assert self._commands is not None, "only an admitted client has commands"
            self._commands.received(message)
        elif isinstance(message, CopyData):
            self._stream.copy_data_received(message.data)
        else:
            self.state = state
            self._stream.copy_done_received()
        return True

    # Ends

    def fail(self, error: WalsenderError) -> None:
        """
        Tell the client what is wrong.

        Before it is admitted, and if the error is fatal, that is the end.
        """
        if self._stream is not None:
            self._stream.refuse(error)
            return
        fatal = self.session is None or self._dialect.severity(error) == "FATAL"
        self.log_error(error, fatal=fatal)
        self.forget_slots()
        if isinstance(error, ObsoleteProtocol):
            self.transport.write(old_format_error(error))
        else:
            self.transport.write(self._dialect.error(error, fatal=fatal))
        if self.session is None:
            self.close()  # strangers are not waited for
        elif fatal:
            self._close_when_heard()
        elif self._commands is not None and not self._commands.skipping_to_sync:
            self.transport.write(self._commands.ready)

    def _violated(self, error: SilentViolation) -> None:
        """The stream of bytes makes no sense any more."""
        if self.session is not None and self._dialect.reports_lost_client and self._stream is None:
            self.log_error(error)
            self._client_lost()
            return
        self.log.ended(error.message)
        self.close()

    def _client_lost(self) -> None:
        """The client will send no further command, and has not said good-bye."""
        message = "unexpected EOF on standby connection"
        if self._dialect.tells_lost_client:
            self.fail(ProtocolViolation(message))
        else:
            self.log.ended(message)
            self.close()

    def _stop_waiting(self) -> None:
        """Let go of the stream, or of whoever decides whether the client may come in."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
        entrance, self._entrance = self._entrance, None
        if entrance is not None:
            entrance.stop()
        if self._commands is not None:
            self._commands.close()

    def _set_timer(self, seconds: float | None, expired: Callable[..., object] = bool, *args: object) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None if seconds is None else self.factory.reactor.callLater(seconds, expired, *args)
