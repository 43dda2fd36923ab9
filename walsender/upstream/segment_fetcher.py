"""
`UpstreamFetcher`: older WAL from the upstream, over a connection of its own.

There is one such connection at a time, whatever is wanted: the upstream serves other
clients too.  It has no slot and reports nothing as flushed, so that the
upstream counts it neither for what must be kept nor among synchronous standbys.

Who wants one segment will want the next: the stream stops at the segment's end, unread, and
goes on from there when that is so.  Whoever wants another place, and whoever comes after an
error, has a new connection; one that nobody uses is closed after some seconds.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, DeferredLock
from zope.interface import implementer

from walsender.errors import DataCorrupted
from walsender.upstream.answers import answer_within
from walsender.upstream.group_commit import GroupCommit
from walsender.upstream.inquiry import Inquiry
from walsender.upstream.interfaces import (
    ICopyReceiver,
    IUpstreamConnector,
    IUpstreamSession,
    Row,
    UpstreamError,
)
from walsender.upstream.reception import Reception
from walsender.upstream.segment_writer import SegmentWriter
from walsender.wal import parse_file_name
from walsender.wire.replication import NetworkLayout, XLogData

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from walsender.lsn import Geometry
    from walsender.upstream.inquiry import System
    from walsender.wal import WalIdentity, WritableFiles

IDLE: Final = 3.0  # seconds
"""For so long a connection is kept that nobody uses."""

_FILE_MISSING: Final = "58P01"
_LAYOUT: Final = NetworkLayout()


@dataclass(frozen=True, slots=True)
class _Piece:
    """One segment of one timeline, by its positions."""

    timeline: int
    start: int
    end: int


@implementer(ICopyReceiver)
class _Stream:
    """
    One stream, of which one `Reception` after another takes a piece.

    :ivar is_over: the session is at command level again, or lost.
    """

    def __init__(self, timeline: int, receiver: Reception) -> None:
        self.timeline = timeline
        self.receiver = receiver
        self.is_over = False
        self._last: bytes | memoryview = b""

    def position(self, geometry: Geometry) -> int:
        """Return the end of what has come, taken or not."""
        message = _LAYOUT.decode_walsender(memoryview(self._last))
        assert isinstance(message, XLogData), "it begins with a w"
        return geometry.position(message.start) + len(message.data)

    # ICopyReceiver

    def wal_message_received(self, body: bytes | memoryview) -> None:
        """See `ICopyReceiver`."""
        if body[0] == XLogData.tag:
            self._last = body
        self.receiver.wal_message_received(body)

    def batch_received(self) -> None:
        """See `ICopyReceiver`."""
        self.receiver.batch_received()

    def stream_ended(self, rows: Sequence[Row]) -> None:
        """See `ICopyReceiver`."""
        self.is_over = True
        self.receiver.stream_ended(rows)

    def session_lost(self, error: UpstreamError) -> None:
        """See `ICopyReceiver`."""
        self.is_over = True
        self.receiver.session_lost(error)


@dataclass(eq=False, slots=True)
class _Connection:
    """
    An open connection to the upstream.

    :ivar system: where the upstream was when it was opened.
    :ivar stream: what stands still on it, at the end of a segment.
    """

    session: IUpstreamSession
    system: System
    stream: _Stream | None = None

    def can_give(self, wanted: _Piece, geometry: Geometry) -> bool:
        """Return whether the upstream has all of a segment, and no other one stands before it here."""
        stream = self.stream
        return self.has(wanted, geometry) and (
            stream is None
            or (
                not stream.is_over
                and stream.timeline == wanted.timeline
                and stream.position(geometry) == wanted.start
            )
        )

    def has(self, wanted: _Piece, geometry: Geometry) -> bool:
        """Return whether a segment is older than what was being written when the connection was opened."""
        flushed = geometry.position(self.system.flush_lsn)
        newest = self.system.timeline
        return wanted.timeline < newest or (wanted.timeline == newest and wanted.end <= flushed)


class UpstreamFetcher:
    """
    Asks the upstream for segments.

    :param run_in_thread: as `twisted.internet.threads.deferToThread`; writes what comes.
    :param identity: returns whose WAL is wanted.
    :param timeout: ``wal_receiver_timeout`` in seconds; 0 disables.
    :param status_interval: ``wal_receiver_status_interval`` in seconds.
    """

    description: Final = "the upstream"

    def __init__(
        self,
        clock: IReactorTime,
        connector: IUpstreamConnector,
        run_in_thread: Callable[..., Deferred[Any]],
        files: WritableFiles,
        identity: Callable[[], WalIdentity | None],
        *,
        timeout: float,
        status_interval: float,
    ) -> None:
        self._clock = clock
        self._connector = connector
        self._run_in_thread = run_in_thread
        self._files = files
        self._identity = identity
        self._timeout = timeout
        self._status_interval = status_interval
        self._turn = DeferredLock()
        self._kept: _Connection | None = None
        self._closing: IDelayedCall | None = None
        self._stopped = False

    def start(self) -> None:
        """Begin again after `stop`."""
        self._stopped = False

    def stop(self) -> None:
        """Close the connection if nobody uses it, and keep none any more."""
        self._stopped = True
        self._close_kept()

    def fetch(self, name: str, directory: str) -> Deferred[bool]:
        """See `walsender.source.fetching.IWalProvider`."""
        return Deferred.fromCoroutine(self._fetch(name, directory))

    async def _fetch(self, name: str, directory: str) -> bool:
        await self._turn.acquire()
        try:
            identity = self._identity()
            assert identity is not None, "somebody reads from it"
            file = parse_file_name(name, identity.geometry)
            number = file.number(identity.geometry)
            start, end = identity.geometry.segment_start(number), identity.geometry.segment_start(number + 1)
            return await self._fetch_piece(_Piece(file.timeline, start, end), directory, identity)
        finally:
            self._turn.release()

    async def _fetch_piece(self, wanted: _Piece, directory: str, identity: WalIdentity) -> bool:
        kept, self._kept = self._kept, None
        self._stop_waiting()
        if kept is not None and kept.can_give(wanted, identity.geometry):
            with contextlib.suppress(UpstreamError):  # it may have been closed there meanwhile
                return await self._receive(kept, wanted, directory, identity)
        elif kept is not None:
            kept.session.close()
        session = await self._connector.connect()
        try:
            connection = _Connection(session, await self._check(session, identity))
        except BaseException:
            session.close()
            raise
        if wanted.timeline == connection.system.timeline and not connection.has(wanted, identity.geometry):
            self._keep(connection)
            return False  # it is still being written there, and may be for ever
        return await self._receive(connection, wanted, directory, identity)

    async def _receive(
        self, connection: _Connection, wanted: _Piece, directory: str, identity: WalIdentity
    ) -> bool:
        """Return whether a segment has come whole; after an error the connection is closed."""
        well = False
        try:
            has_all = await self._take(connection, wanted, directory, identity)
            well = True
        except UpstreamError as error:
            if error.sqlstate == _FILE_MISSING:
                return False
            raise
        finally:
            if well:
                self._keep(connection)
            else:
                connection.session.close()
        return has_all

    async def _take(
        self, connection: _Connection, wanted: _Piece, directory: str, identity: WalIdentity
    ) -> bool:
        geometry, session = identity.geometry, connection.session
        reception = Reception(
            self._clock,
            session,
            geometry,
            wanted.start,
            wanted.start,
            timeout=self._timeout,
            status_interval=self._status_interval,
            until=wanted.end,
        )
        writer = SegmentWriter(
            self._files,
            directory,
            geometry,
            wanted.timeline,
            wanted.start,
            wanted.start,
            identity=identity,
            distrusted=set(),
        )
        commits = GroupCommit(writer, self._run_in_thread, reception.committed, reception.commit_failed)
        stream = connection.stream
        try:
            if stream is not None:
                stream.receiver = reception
                reception.begin(commits)
                session.resumeProducing()
            else:
                stream = connection.stream = _Stream(wanted.timeline, reception)
                command = f"START_REPLICATION {geometry.lsn(wanted.start)} TIMELINE {wanted.timeline}"
                answer = session.start_streaming(command, stream)
                if await answer_within(self._clock, self._timeout, answer):
                    reception.begin(commits)
            await reception.ended
        finally:
            reception.stop()
            await commits.close()
        if stream.is_over:
            connection.stream = None
        return reception.has_all

    def _keep(self, connection: _Connection) -> None:
        """Let somebody else use a connection, if there is somebody soon."""
        if self._stopped:
            connection.session.close()
        else:
            self._kept = connection
            self._closing = self._clock.callLater(IDLE, self._close_kept)

    def _stop_waiting(self) -> None:
        closing, self._closing = self._closing, None
        if closing is not None and closing.active():
            closing.cancel()

    def _close_kept(self) -> None:
        self._stop_waiting()
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.session.close()

    async def _check(self, session: IUpstreamSession, identity: WalIdentity) -> System:
        """Return where the upstream is; refuse another cluster: connection strings may name several hosts."""
        system = await Inquiry(
            session, lambda answer: answer_within(self._clock, self._timeout, answer)
        ).system()
        if system.identifier != identity.system_identifier:
            raise DataCorrupted(
                "database system identifier differs between the upstream and the WAL directory",
                detail=f"The upstream's identifier is {system.identifier}, "
                f"the directory's is {identity.system_identifier}.",
            )
        return system
