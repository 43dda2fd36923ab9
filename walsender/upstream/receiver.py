"""
`WalReceiver`: keeps a connection to the upstream, and what it sends.

One round is one connection: who is there, which timelines it knows, where to go on,
and then streams, one per timeline, until the connection ends.  Rounds follow one another for
as long as the receiver runs.  What has gone wrong is logged when it begins to be wrong.

Source: PostgreSQL, src/backend/replication/walreceiver.c; src/bin/pg_basebackup/receivelog.c.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger

from walsender.errors import DataCorrupted, DiskFull, WalsenderError
from walsender.lsn import LSN, Geometry
from walsender.upstream.answers import answer_within
from walsender.upstream.inquiry import Inquiry, System
from walsender.upstream.interfaces import IUpstreamConnector, IUpstreamSession, UpstreamError
from walsender.upstream.outage import Outage
from walsender.upstream.plan import Start, plan_start
from walsender.upstream.reception import Reception
from walsender.wal import TimelineHistory, history_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from walsender.upstream.group_commit import GroupCommit
    from walsender.upstream.segment_writer import Commit
    from walsender.upstream.status import NotReceiving, ReceiverStatus
    from walsender.wal import WalIdentity

_FIRST_RETRY: Final = 0.1  # seconds
_OLDEST_VERSION: Final = 90400
_FILE_MISSING: Final = "58P01"
_ANOTHER_DIRECTORY: Final = "Serve this upstream from another, empty WAL directory."


class IWalKeeper(Protocol):
    """Where received WAL goes."""

    @property
    def identity(self) -> WalIdentity | None:
        """Whose WAL is held; ``None`` before the first."""

    @property
    def held_timeline(self) -> int:
        """The newest timeline that is held; 0 before the first WAL."""

    @property
    def held_position(self) -> int:
        """Up to where it is durable."""

    def known_history(self, timeline: int) -> bytes | None:
        """Return the history file of *timeline* if it is held."""

    def keep_history(self, timeline: int, content: bytes) -> Deferred[None]:
        """Keep a history file; fires when it is durable."""

    def keep_from(
        self,
        timeline: int,
        start: int,
        geometry: Geometry,
        committed: Callable[[Commit], None],
        failed: Callable[[Failure], None],
    ) -> GroupCommit:
        """Return what keeps *timeline*'s WAL from *start* on, a segment's first byte."""

    def fill(self, timeline: int, start: int, until: int) -> Deferred[bool]:
        """
        Get what the upstream does not have from elsewhere; fires with whether anything could be had.

        :param start: a segment's first byte.
        :param until: position behind which nothing is the upstream's WAL.
        """

    def durable_on(self, timeline: int, start: int) -> int:
        """Return up to where *timeline* is durable here, if it is from *start* on; else *start*."""

    def check_room(self) -> Deferred[None]:
        """Look whether there is room for what comes next; fails with `walsender.errors.DiskFull`."""

    def make_room(self) -> Deferred[str]:
        """Remove what nobody needs; fires with why the rest stays, or nothing if there is more room now."""


class WalRemoved(UpstreamError):
    """The upstream no longer has WAL that comes next."""


@dataclass(frozen=True, slots=True)
class ReceiverSettings:
    """
    How to receive.

    :ivar slot_name: ``primary_slot_name``; empty: none.
    :ivar create_slot: make the slot if the upstream does not have it.
    :ivar timeout: ``wal_receiver_timeout`` in seconds; 0 disables.
    :ivar status_interval: ``wal_receiver_status_interval`` in seconds.
    :ivar retry_interval: ``wal_retrieve_retry_interval`` in seconds: the longest rest between two tries.
    """

    slot_name: str = ""
    create_slot: bool = False
    timeout: float = 60.0
    status_interval: float = 10.0
    retry_interval: float = 5.0


class WalReceiver:
    """
    Receives WAL for as long as it runs.

    :param feedback: returns what the standbys need, as 64-bit transaction ids, 0 for none, or ``None`` while
        that is not known; ``None``: the standbys' transactions do not concern the upstream.
    :param jitter: returns a number from 0 to 1, so that many relays do not come back at one moment.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        connector: IUpstreamConnector,
        keeper: IWalKeeper,
        settings: ReceiverSettings,
        *,
        feedback: Callable[[], tuple[int, int] | None] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._connector = connector
        self._keeper = keeper
        self._settings = settings
        self._feedback = feedback
        self._jitter = jitter
        self._waiting: Deferred[Any] = succeed(None)
        self._stopping = False
        self._hurried = False
        self._failures = 0
        self._outage = Outage(clock)
        self._forked: Start | None = None
        self._finished: Deferred[None] | None = None
        self._status: Callable[[], ReceiverStatus] | None = None

    @property
    def status(self) -> ReceiverStatus | None:
        """What is received at the moment; ``None``: there is no stream."""
        return None if self._status is None else self._status()

    @property
    def not_receiving(self) -> NotReceiving | None:
        """Since when there is no stream, and why; ``None``: there is one."""
        return self._outage.now if self._status is None else None

    def start(self) -> None:
        """Begin to receive."""
        self._stopping = False
        self._finished = Deferred.fromCoroutine(self._run())

    def stop(self) -> Deferred[None]:
        """Leave the upstream; fires when nothing is written any more."""
        self._stopping = True
        return self._interrupt()

    def reconfigure(
        self,
        connector: IUpstreamConnector,
        settings: ReceiverSettings,
        feedback: Callable[[], tuple[int, int] | None] | None,
    ) -> None:
        """Go on with another upstream or other settings, at once."""
        self._connector, self._settings, self._feedback = connector, settings, feedback
        self._hurried = True
        self._interrupt()

    def _interrupt(self) -> Deferred[None]:
        """End what is waited for; the round clears up after itself."""
        done: Deferred[None] = Deferred()
        if self._finished is None or self._finished.called:
            done.callback(None)
        else:
            self._finished.addBoth(_pass_on, done)
            self._waiting.cancel()
        return done

    async def _wait(self, deferred: Deferred[Any]) -> Any:
        """Wait for *deferred*, in such a way that `stop` can end the waiting."""
        self._waiting = deferred
        if self._stopping or self._hurried:
            deferred.cancel()  # asked for while a commit had to be waited for
        try:
            return await deferred
        finally:
            self._waiting = succeed(None)

    async def _answer(self, deferred: Deferred[Any]) -> Any:
        """Wait for the answer to a command; a network that is cut must not hold us up for good."""
        return await self._wait(answer_within(self._clock, self._settings.timeout, deferred))

    async def _run(self) -> None:
        while not self._stopping:
            self._hurried = False
            try:
                await self._round()
            except CancelledError:
                continue
            except DiskFull as error:
                if await self._make_room(error):
                    continue
            except WalsenderError as error:
                self._outage.complain(error)
            except Exception:  # noqa: BLE001 -- receiving must not end for good; what is held is served
                self._outage.fail()
            try:
                if not (self._stopping or self._hurried):
                    await self._wait(deferLater(self._clock, self._rest()))
            except CancelledError:
                continue

    async def _make_room(self, error: DiskFull) -> bool:
        """Return whether it is worth while to go on at once."""
        try:
            reason = await self._wait(self._keeper.make_room())
        except CancelledError:
            return True
        if reason:
            self._outage.complain(DiskFull(error.message, detail=reason))
        return not reason

    def _rest(self) -> float:
        """Return how long to wait before the next try: longer each time, never the same."""
        longest = self._settings.retry_interval
        rest = min(longest, _FIRST_RETRY * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return rest * (0.5 + 0.5 * self._jitter())

    # One round

    async def _round(self) -> None:
        await self._wait(self._keeper.check_room())
        session: IUpstreamSession = await self._wait(self._connector.connect())
        try:
            if session.server_version < _OLDEST_VERSION:
                raise UpstreamError(
                    f"the upstream is PostgreSQL {session.server_version // 10000}: too old to be relayed"
                )
            inquiry = Inquiry(session, self._answer)
            system = await self._identify(inquiry)
            geometry = await self._geometry(inquiry)
            if self._settings.slot_name and self._settings.create_slot:
                await self._create_slot(inquiry)
            while True:
                history, missing = await self._fetch_histories(inquiry, system.timeline, geometry)
                start = await self._start(inquiry, system, history, geometry)
                # Only now: what is refused must leave nothing here.
                for timeline, content in missing:
                    await self._wait(self._keeper.keep_history(timeline, content))
                switch = history.switchpoint(start.timeline)
                until = geometry.position(system.flush_lsn if switch is None else switch[0])
                try:
                    more = await self._stream(session, start, until, geometry)
                except WalRemoved:
                    session.close()
                    if not await self._wait(self._keeper.fill(start.timeline, start.position, until)):
                        raise
                    self._hurried = True
                    return
                if not more:
                    raise UpstreamError("replication terminated by the upstream")
                system = await self._identify(inquiry)
        finally:
            session.close()

    async def _identify(self, inquiry: Inquiry) -> System:
        """Return who the upstream is; it must be of the cluster whose WAL is held."""
        system = await inquiry.system()
        held = self._keeper.identity
        if held is not None and held.system_identifier != system.identifier:
            raise DataCorrupted(
                "database system identifier differs between the upstream and the WAL directory",
                detail=f"The upstream's identifier is {system.identifier}, "
                f"the directory's is {held.system_identifier}.",
                hint=_ANOTHER_DIRECTORY,
            )
        return system

    async def _geometry(self, inquiry: Inquiry) -> Geometry:
        """Return how the upstream cuts its WAL, which must be how the directory's is cut."""
        held = self._keeper.identity
        geometry = await inquiry.geometry()
        if geometry is None:  # other sizes than the usual ones needed a build of one's own then
            return held.geometry if held is not None else Geometry.contiguous()
        if held is not None and held.geometry != geometry:
            raise DataCorrupted("the upstream's WAL segments have another size than the WAL directory's")
        return geometry

    async def _create_slot(self, inquiry: Inquiry) -> None:
        name = self._settings.slot_name
        if await inquiry.create_slot(name):
            self._log.info('created replication slot "{name}" on the upstream', name=name)

    async def _fetch_histories(
        self, inquiry: Inquiry, timeline: int, geometry: Geometry
    ) -> tuple[TimelineHistory, list[tuple[int, bytes]]]:
        """Return the history of the upstream's timeline, and the files that are missing here."""
        if timeline == 1:
            return TimelineHistory(1), []
        content = await inquiry.history_file(timeline)
        history = TimelineHistory.parse(timeline, content, geometry)
        held = self._keeper.known_history(timeline)
        if held is not None and TimelineHistory.parse(timeline, held, geometry) != history:
            raise DataCorrupted(
                f'the upstream\'s file "{history_name(timeline)}" differs from the one that is held',
                detail="Two servers have been promoted to the same timeline.",
                hint=_ANOTHER_DIRECTORY,
            )
        # Ancestors first: a timeline that is known must have a known past.
        missing = []
        for ancestor in history.ancestors:
            if ancestor > 1 and self._keeper.known_history(ancestor) is None:
                try:
                    missing.append((ancestor, await inquiry.history_file(ancestor)))
                except UpstreamError as error:
                    # A server that began as a copy has the files of its own past only from then on.
                    if error.sqlstate != _FILE_MISSING:
                        raise
        if held is None:
            missing.append((timeline, content))
        return history, missing

    async def _start(
        self, inquiry: Inquiry, system: System, history: TimelineHistory, geometry: Geometry
    ) -> Start:
        if not self._keeper.held_timeline:
            return await self._first_start(inquiry, system, history, geometry)
        held = self._keeper.held_timeline
        content = self._keeper.known_history(held)
        own = TimelineHistory(held) if content is None else TimelineHistory.parse(held, content, geometry)
        start = plan_start(history, own, self._keeper.held_position, geometry, self._keeper.durable_on)
        if start.forked_at is not None and start != self._forked:
            self._forked = start
            self._log.warn(
                "the upstream's history left timeline {held} at {lsn}; WAL behind that, up to {end}, is kept "
                "and not followed",
                held=held,
                lsn=geometry.lsn(start.forked_at),
                end=geometry.lsn(self._keeper.held_position),
            )
        return start

    async def _first_start(
        self, inquiry: Inquiry, system: System, history: TimelineHistory, geometry: Geometry
    ) -> Start:
        """Begin an empty directory with what the slot has kept, or with the upstream's newest segment."""
        timeline, lsn = system.timeline, system.flush_lsn
        if self._settings.slot_name:
            kept = await inquiry.slot_lsn(self._settings.slot_name)
            if kept is not None:
                timeline, lsn = history.timeline_at(kept), kept
        return Start(timeline, geometry.segment_start(geometry.segment_number(geometry.position(lsn))))

    async def _stream(self, session: IUpstreamSession, start: Start, until: int, geometry: Geometry) -> bool:
        """
        Receive one timeline to its end; return whether there is another.

        :param until: position up to which the upstream has WAL of it now.
        """
        timeline, position = start.timeline, start.position
        lsn = geometry.lsn(position)
        reception = Reception(
            self._clock,
            session,
            geometry,
            position,
            self._keeper.durable_on(timeline, position),
            timeout=self._settings.timeout,
            status_interval=self._settings.status_interval,
            feedback=self._feedback,
            alive=lambda: self._streaming(session, timeline, lsn),
            expected=until,
        )
        commits = self._keeper.keep_from(
            timeline, position, geometry, reception.committed, reception.commit_failed
        )
        slot = f'SLOT "{self._settings.slot_name}" ' if self._settings.slot_name else ""
        try:
            command = f"START_REPLICATION {slot}{lsn} TIMELINE {timeline}"
            if await self._answer(session.start_streaming(command, reception)):
                self._status = partial(reception.status, timeline, self._settings.slot_name)
                reception.begin(commits)
            return bool(await self._wait(reception.ended))
        except UpstreamError as error:
            if error.sqlstate == _FILE_MISSING:
                raise WalRemoved(
                    f"the upstream no longer has WAL from {lsn} on timeline {timeline}: {error.message}",
                    error.sqlstate,
                    hint="Set restore_command, or copy the missing segments into wal_directory.",
                ) from error
            raise
        finally:
            self._status = None
            self._outage.begin()
            reception.stop()
            await commits.close()

    def _streaming(self, session: IUpstreamSession, timeline: int, lsn: LSN) -> None:
        self._failures = 0
        self._outage.end()
        self._log.info(
            "started streaming WAL from the upstream ({where}) at {lsn} on timeline {timeline}",
            where=session.description,
            lsn=lsn,
            timeline=timeline,
        )


def _pass_on(result: object, done: Deferred[None]) -> object:
    done.callback(None)
    return result


__all__ = ["IWalKeeper", "ReceiverSettings", "WalReceiver"]
