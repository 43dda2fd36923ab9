"""The two contracts inside the sender: where slices go, and who is told about a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.interfaces import (
    IConsumer,
    IOpenSSLServerConnectionCreator,
    IProtocol,
    IPushProducer,
    IReactorCore,
    IReactorFDSet,
    IReactorFromThreads,
    IReactorPluggableNameResolver,
    IReactorThreads,
    IReactorTime,
    ISystemHandle,
    ITLSTransport,
)
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred

    from walsender.auth import TlsInfo
    from walsender.errors import WalsenderError
    from walsender.sender.parameters import SessionParameters
    from walsender.sender.producer import WalProducer
    from walsender.sender.protocol import WalSender
    from walsender.sender.slot_table import WalSenderEntry
    from walsender.source import Permit, TimelineEnd, WalSlice
    from walsender.wire import FrontendMessage
    from walsender.wire.dialect import Dialect


class IServerReactor(
    IReactorCore,
    IReactorTime,
    IReactorFDSet,
    IReactorThreads,
    IReactorFromThreads,
    IReactorPluggableNameResolver,
):
    """What is needed of a reactor."""


class IClientTransport(ITLSTransport, IConsumer, IPushProducer, ISystemHandle):
    """What is needed of a transport; Twisted's stream transports all have it."""

    protocol: IProtocol = Attribute("who is given what arrives; under TLS that is the one who decrypts it.")


class IServerTls(IOpenSSLServerConnectionCreator):
    """Our certificate and key."""

    not_after: float = Attribute("until when the certificate is good, in seconds since 1970.")

    def info(connection: Any) -> TlsInfo:
        """Return what *connection*, an ``OpenSSL.SSL.Connection``, says of its ends after the handshake."""


class IConversation(Protocol):
    """What answers a client outside of streams."""

    skipping_to_sync: bool

    @property
    def is_waiting(self) -> bool:
        """Whether something else than the client is waited for."""

    @property
    def ready(self) -> bytes:
        """ReadyForQuery, as it is to be sent now."""

    def received(self, message: FrontendMessage) -> None:
        """
        Answer *message*.

        :raises WalsenderError: it is refused.
        """

    def cancel(self) -> None:
        """The client has asked, with its key, that what is done for it be ended."""

    def close(self) -> None:
        """The connection is over; harmless when repeated."""


class IConsole(Protocol):
    """Answers clients that want SQL."""

    def check_room(self) -> None:
        """
        Check that one more can come.

        :raises walsender.errors.TooManyConnections: there are too many.
        """

    def session(
        self,
        host: WalSender,
        dialect: Dialect,
        parameters: SessionParameters,
        entry: WalSenderEntry,
        database: str,
        server_address: tuple[str | None, int | None],
        *,
        may_administer: bool,
    ) -> IConversation:
        """
        Return what answers a client that has been let in.

        :param server_address: host and port that it has connected to.
        :param may_administer: whether it may change something.
        """


class IWalConsumer(Interface):
    """
    Takes the bytes of one stream to one client, in the order in which they are given.

    From `start` to the result of `finish` *every* byte to the client goes through here.
    """

    read_size = Attribute("``int``: bytes of WAL that a piece should have at most.")

    def start(producer: WalProducer) -> None:
        """
        Take over the connection for *producer*.

        The consumer calls ``resumeProducing`` when the first byte may come.  It
        may call ``pauseProducing`` from inside `send` and `write`.
        """

    def send(prefix: bytes, piece: WalSlice) -> None:
        """
        Send *prefix*, then the bytes of *piece*.

        Not while the producer is paused.
        """

    def write(data: bytes) -> None:
        """Send *data* after all that has been given before; small, and possible at any time."""

    def when_drained(drained: Callable[[], None]) -> None:
        """
        Call *drained* when everything given is with the kernel; perhaps at once, never after the end.

        Not while the producer is paused.  It may be paused until then.
        """

    def lend(permit: Permit) -> bool:
        """
        Let another thread send by *permit*, if all that was given is with the kernel; return whether.

        Until `take_back` nothing is given; `close` withdraws the permit.
        """

    def take_back(rest: bytes) -> None:
        """
        The permit has been withdrawn; *rest* is to be sent of what was sent by it.

        Harmless if nothing was lent.
        """

    def finish() -> Deferred[None]:
        """
        Give the connection back; a Deferred fires when the transport may be written to again.

        Nothing that was given before is lost; if the connection is, it never fires.
        """

    def close() -> None:
        """
        Let go of everything at once: the connection is lost or about to be aborted.

        Harmless when repeated, and after `finish`.
        """


class IStreamOwner(Interface):
    """What a producer tells the conversation that it belongs to."""

    def wal_sent(position: int) -> None:
        """Everything before *position* has been handed to the consumer."""

    def wal_available(position: int, at: float) -> None:
        """
        Everything before *position* may be sent; it may have been told before.

        :param at: since when, by the reactor's clock.
        """

    def opening(position: int) -> None:
        """WAL at *position* is not at hand yet."""

    def opened(position: int) -> None:
        """It is."""

    def caught_up() -> None:
        """Nothing is left to send for now."""

    def timeline_ended(end: TimelineEnd) -> None:
        """All of a historic timeline is sent, up to its *end*."""

    def stream_failed(error: WalsenderError) -> None:
        """
        The next WAL cannot be read.

        The client is at a message boundary and can be told.
        """

    def stream_broken(error: WalsenderError) -> None:
        """As `stream_failed`, but in the middle of a message: the connection must be aborted."""
