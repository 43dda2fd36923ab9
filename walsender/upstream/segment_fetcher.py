"""
`UpstreamFetcher`: older WAL from the upstream, over a connection of its own.

There is one such connection at a time, whatever is wanted: the upstream serves other
clients too.  It has no slot and reports nothing as flushed, so that the
upstream counts it neither for what must be kept nor among synchronous standbys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, DeferredLock

from walsender.errors import DataCorrupted
from walsender.upstream.answers import answer_within
from walsender.upstream.group_commit import GroupCommit
from walsender.upstream.inquiry import Inquiry
from walsender.upstream.interfaces import IUpstreamConnector, IUpstreamSession, UpstreamError
from walsender.upstream.reception import Reception
from walsender.upstream.segment_writer import SegmentWriter
from walsender.wal import parse_file_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

    from walsender.upstream.inquiry import System
    from walsender.wal import WalIdentity, WritableFiles

_FILE_MISSING: Final = "58P01"


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

    def fetch(self, name: str, directory: str) -> Deferred[bool]:
        """See `walsender.source.fetching.IWalProvider`."""
        return Deferred.fromCoroutine(self._fetch(name, directory))

    async def _fetch(self, name: str, directory: str) -> bool:
        await self._turn.acquire()
        try:
            session = await self._connector.connect()
            try:
                return await self._receive(session, name, directory)
            finally:
                session.close()
        finally:
            self._turn.release()

    async def _receive(self, session: IUpstreamSession, name: str, directory: str) -> bool:
        identity = self._identity()
        assert identity is not None, "somebody reads from it"
        system = await self._check(session, identity)
        geometry = identity.geometry
        file = parse_file_name(name, geometry)
        number = file.number(geometry)
        start, end = geometry.segment_start(number), geometry.segment_start(number + 1)
        if file.timeline == system.timeline and geometry.position(system.flush_lsn) < end:
            return False  # it is still being written there, and may be for ever
        reception = Reception(
            self._clock,
            session,
            geometry,
            start,
            start,
            timeout=self._timeout,
            status_interval=self._status_interval,
            until=end,
        )
        writer = SegmentWriter(
            self._files,
            directory,
            geometry,
            file.timeline,
            start,
            start,
            identity=identity,
            distrusted=set(),
        )
        commits = GroupCommit(writer, self._run_in_thread, reception.committed, reception.commit_failed)
        try:
            command = f"START_REPLICATION {geometry.lsn(start)} TIMELINE {file.timeline}"
            answer = session.start_streaming(command, reception)
            if await answer_within(self._clock, self._timeout, answer):
                reception.begin(commits)
            await reception.ended
        except UpstreamError as error:
            if error.sqlstate == _FILE_MISSING:
                return False
            raise
        finally:
            reception.stop()
            await commits.close()
        return reception.has_all

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
