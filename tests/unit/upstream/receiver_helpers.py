"""A receiver with all around it: an upstream that follows a script, a relay's directory, a thread."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from upstream_helpers import WAL
from zope.interface import implementer

from walsender.lsn import LSN
from walsender.simulate.cluster import SEGMENT_SIZE, Cluster
from walsender.simulate.disk import SimulatedDisk
from walsender.simulate.files import WalFiles
from walsender.source import RelaySource
from walsender.upstream import (
    ICopyReceiver,
    IUpstreamConnector,
    IUpstreamSession,
    ReceiverSettings,
    Row,
    UpstreamError,
    WalReceiver,
)
from walsender.wal import TimelineHistory, history_name
from walsender.wire import HotStandbyFeedback, PrimaryKeepalive, StandbyMessage, StandbyStatusUpdate
from walsender.wire.replication import NetworkLayout, XLogData

if TYPE_CHECKING:
    from collections.abc import Callable

_LAYOUT = NetworkLayout()
_PIECE = 64 << 10  # bytes of WAL in one message


class Thread:
    """
    A thread that does things at once, or when it is told to.

    :ivar hangs: it does nothing until `go_on`.
    """

    def __init__(self) -> None:
        self.hangs = False
        self._waiting: list[Callable[[], None]] = []

    def run(self, function: Callable[..., object], *args: object, **kwargs: object) -> Deferred[Any]:
        """See `twisted.internet.threads.deferToThread`."""
        if not self.hangs:
            return maybeDeferred(function, *args, **kwargs)
        done: Deferred[Any] = Deferred()
        self._waiting.append(lambda: maybeDeferred(function, *args, **kwargs).chainDeferred(done))
        return done

    def go_on(self) -> None:
        """Do what has been waiting."""
        self.hangs = False
        while self._waiting:
            self._waiting.pop(0)()


@implementer(IUpstreamConnector)
class Upstream:
    """
    A server that answers what it is asked.

    :ivar commands: what it was asked, over all connections.
    :ivar missing: timelines whose history files it does not have.
    :ivar silent: it does not answer commands that begin so.
    :ivar oldest: the first position that it still has.
    :ivar sends: up to where it streams its newest timeline; as far as WAL goes unless it is set.
    """

    def __init__(self, cluster: Cluster, version: int = 180000) -> None:
        self.cluster = cluster
        self.version = version
        self.commands: list[str] = []
        self.missing: set[int] = set()
        self.silent = "nothing"
        self.oldest = 0
        self.sends: int | None = None
        self.session: Session | None = None

    @property
    def end(self) -> int:
        """Up to where its newest timeline is sent."""
        return self.cluster.position if self.sends is None else self.sends

    def connect(self) -> Deferred[IUpstreamSession]:
        """See `IUpstreamConnector`."""
        self.session = Session(self)
        return succeed(self.session)

    def started_at(self) -> list[str]:
        """Return where streams were asked for."""
        begin = "START_REPLICATION "
        return [command.removeprefix(begin) for command in self.commands if command.startswith(begin)]


@implementer(IUpstreamSession)
class Session:
    """
    One connection to an `Upstream`.

    :ivar told: the messages of the receiver.
    :ivar receiver: to whom it streams.
    """

    description = "host=upstream port=5432"

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._answer: Deferred[Any] | None = None
        self.receiver: ICopyReceiver | None = None
        self._timeline = 0
        self._position = 0
        self.server_version = upstream.version
        self.told: list[StandbyMessage] = []
        self.closed = False

    def execute(self, command: str) -> Deferred[list[Row]]:
        """See `IUpstreamSession`."""
        self._upstream.commands.append(command)
        if self.closed:
            return fail(UpstreamError("the connection to the upstream has been closed"))
        if command.startswith(self._upstream.silent):
            return Deferred(lambda _: self.close())
        return maybeDeferred(lambda: [self._row(*command.split())])

    def _row(self, command: str, *words: str) -> Row:
        cluster = self._upstream.cluster
        if command == "IDENTIFY_SYSTEM":
            values = [cluster.system_identifier, cluster.timeline, LSN(self._upstream.end), ""]
            return tuple(str(value).encode() for value in values)
        if command == "SHOW":
            return (b"1MB" if words == ("wal_segment_size",) else b"8192",)
        assert command == "TIMELINE_HISTORY", command
        timeline = int(words[0])
        content = cluster.history_file(timeline)
        if timeline in self._upstream.missing or content is None:
            raise UpstreamError("could not open file: No such file or directory", "58P01")
        return history_name(timeline).encode(), content

    def start_streaming(self, command: str, receiver: ICopyReceiver) -> Deferred[bool]:
        """See `IUpstreamSession`."""
        self._upstream.commands.append(command)
        if command.startswith(self._upstream.silent):
            return Deferred(lambda _: self.close())
        *_, lsn, _, timeline = command.split()
        self._position, self._timeline = LSN.parse(lsn), int(timeline)
        if self._position < self._upstream.oldest:
            return fail(UpstreamError("requested WAL segment … has already been removed", "58P01"))
        self.receiver = receiver
        return succeed(True)

    def deliver(self) -> bool:
        """Let come what there is, the end of the timeline too if it has one; return whether anything came."""
        receiver, cluster = self.receiver, self._upstream.cluster
        if receiver is None or self.closed:
            return False
        newest = TimelineHistory(1)
        if (content := cluster.history_file(cluster.timeline)) is not None:
            newest = TimelineHistory.parse(cluster.timeline, content)
        switch = newest.switchpoint(self._timeline)
        end = self._upstream.end if switch is None else switch[0]
        came = self._position < end
        while self._position < end and not self.closed:
            stop = min(self._position + _PIECE, end)
            wal = cluster.wal(self._timeline, self._position, stop)
            message = XLogData(LSN(self._position), LSN(end), 0, wal)
            receiver.wal_message_received(_LAYOUT.encode(message))
            self._position = stop
        if came:
            receiver.batch_received()
        if switch is None or self.closed:
            return came
        self.receiver = None
        receiver.stream_ended([(str(switch[1]).encode(), str(switch[0]).encode())])
        return True

    def keepalive(self) -> None:
        """Say that we are here."""
        assert self.receiver is not None
        self.receiver.wal_message_received(_LAYOUT.encode(PrimaryKeepalive(LSN(0), 0)))

    def send(self, data: bytes) -> None:
        """See `IUpstreamSession`."""
        if not self.closed:
            self.told.append(_LAYOUT.decode_standby(data))

    def statuses(self) -> list[StandbyStatusUpdate]:
        """Return the status updates that have come."""
        return [message for message in self.told if isinstance(message, StandbyStatusUpdate)]

    def feedbacks(self) -> list[tuple[int, int]]:
        """Return the transactions of the feedback that has come, without epochs."""
        told = [message for message in self.told if isinstance(message, HotStandbyFeedback)]
        return [(message.xmin, message.catalog_xmin) for message in told]

    def end_streaming(self) -> None:
        """See `IUpstreamSession`."""

    def pauseProducing(self) -> None:
        """See `IUpstreamSession`."""

    def resumeProducing(self) -> None:
        """See `IUpstreamSession`."""

    def stopProducing(self) -> None:
        """See `IUpstreamSession`."""
        self.close()

    def close(self) -> None:
        """See `IUpstreamSession`."""
        self.closed = True


class ReceiverTestCase(SynchronousTestCase):
    """Has a relay's directory on a simulated disk, and a receiver that fills it."""

    def setUp(self) -> None:
        """Begin with an empty directory."""
        self.clock = Clock()
        self.thread = Thread()
        self.disk = SimulatedDisk(random.Random(0))
        self.addCleanup(self.disk.close)
        self.disk.make_directory(WAL)
        self.disk.sync_directory("/")
        self.source = self.new_source()

    def new_source(self) -> RelaySource:
        """Return what a new process makes of the directory."""
        source = RelaySource(maybeDeferred, self.thread.run, WalFiles(self.disk), WAL)
        self.successResultOf(source.start())
        self.source = source
        return source

    def receiver(self, upstream: Upstream, **settings: Any) -> WalReceiver:
        """Return a receiver that has been started."""
        receiver = WalReceiver(self.clock, upstream, self.source, ReceiverSettings(**settings))
        receiver.start()
        return receiver

    def receive(self, upstream: Upstream) -> None:
        """Receive all that *upstream* has, then leave it."""
        receiver = self.receiver(upstream)
        for _ in range(20):
            if upstream.session is None or not upstream.session.deliver():
                break
        else:
            self.fail("receiving does not come to an end")
        self.successResultOf(receiver.stop())

    def held(self) -> tuple[int, int]:
        """Return timeline and position that are shown."""
        return self.source.timeline, self.source.flush_position


def cluster_with(segments: float) -> Cluster:
    """Return a cluster that has written so many segments."""
    cluster = Cluster()
    while cluster.position < SEGMENT_SIZE * (1 + segments):
        cluster.write(30_000)
    return cluster
