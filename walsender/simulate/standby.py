"""`Standby`: a client that streams, follows timelines, comes back, and is slow or silent at times."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from zope.interface import implementer

from walsender.lsn import LSN
from walsender.simulate.client import Connector
from walsender.simulate.machine import Process
from walsender.simulate.witness import Server
from walsender.upstream import ICopyReceiver, IUpstreamSession, Row, UpstreamError
from walsender.wal import TimelineHistory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.interfaces import IDelayedCall

    from walsender.simulate.world import World

_STATUS_INTERVAL = 1.0  # seconds
_WAL_HEADER = 25  # bytes


class Standby:
    """
    One standby; it never dies.

    :param servers: names of those that it streams from, one at a time.
    :param slot: whether it has a permanent slot on each.
    :ivar timeline: that it is on.
    :ivar position: up to where it has WAL of that.
    :ivar made_anew: it will come back as one that has an old backup and nothing else.
    :ivar silent_until: till then it tells nobody anything.
    :ivar slow_until: till then it reads seldom.
    """

    def __init__(self, world: World, name: str, servers: list[str], *, slot: bool) -> None:
        self.name = name
        self.timeline = 1
        self.position = world.cluster.geometry.segment_size
        self.silent_until = self.slow_until = 0.0
        self.server = servers[0]
        self.me = Server(world, name, world.cluster, None)
        self.rewound = 0
        self._world = world
        self._servers = servers
        self._slot = slot
        self._slots_made: set[str] = set()
        self._slots_lost: set[str] = set()
        self.made_anew = False
        self._process = Process(world.clock, world.random, lambda: None)
        self._connector = Connector(
            self._process,
            lambda session: world.dial(session, self._process, self.server),
            lambda: world.witness(self.server, self),
            name,
        )

    def start(self) -> None:
        """Begin, and never end."""
        Deferred.fromCoroutine(self._run()).addErrback(self._world.bug)

    async def _run(self) -> None:
        while True:
            if self._world.random.random() < 0.2:
                self.server = self._world.random.choice(self._servers)
            if self.made_anew:
                self.made_anew = False
                self._leave(1, self._world.cluster.geometry.segment_size)
            try:
                session = await self._connector.connect()
                try:
                    await self._stream_all(session)
                finally:
                    session.close()
            except UpstreamError as error:
                self._world.remark(f"{self.name} at {self.server}: {error}")
                if error.sqlstate == "55000" and "can no longer access" in str(error):
                    self._slots_made.discard(self.server)
                    self._slots_lost.add(self.server)
                    self._world.count("slots lost")
                    self._world.server_of(self.server).slot_lost(self.name)
                if error.sqlstate == "58P01" and self.position < self._world.relays[self.server].begin:
                    # It has received nothing yet, and the relay began later: a new standby is made.
                    self._leave(self._world.cluster.timeline, self._world.relays[self.server].begin)
            await deferLater(self._process.reactor, self._world.random.uniform(0.05, 0.5))

    async def _stream_all(self, session: IUpstreamSession) -> None:
        while True:
            row = (await session.execute("IDENTIFY_SYSTEM"))[0]
            timeline = int(row[1] or b"")
            if timeline < self.timeline:
                raise UpstreamError(f"highest timeline {timeline} of the primary is behind {self.timeline}")
            if timeline > self.timeline:
                rows = await session.execute(f"TIMELINE_HISTORY {timeline}")
                history = TimelineHistory.parse(timeline, rows[0][1] or b"", self._world.cluster.geometry)
                self._rewind(history)
            slot = ""
            if self._slot:
                slot = f'SLOT "{self.name}" '
                await self._make_slot(session)
            size = self._world.cluster.geometry.segment_size
            start = LSN(self.position - self.position % size)
            stream = _Stream(self._world, self, session, start)
            await session.start_streaming(f"START_REPLICATION {slot}{start} TIMELINE {self.timeline}", stream)
            if slot:
                # Now it is relied on.  That it exists already may be said of one that is being made.
                self._slots_made.add(self.server)
                self._world.server_of(self.server).slot_created(self.name)
            stream.begin()
            rows_at_end = await stream.ended
            if not rows_at_end:
                return
            self.timeline = int(rows_at_end[0][0] or b"")
            switchpoint = int(LSN.parse((rows_at_end[0][1] or b"").decode()))
            if switchpoint < self.position:
                self._leave(self.timeline, switchpoint)

    async def _make_slot(self, session: IUpstreamSession) -> None:
        if self.server in self._slots_made:
            return  # it must be there
        if self.server in self._slots_lost:
            try:
                await session.execute(f'DROP_REPLICATION_SLOT "{self.name}"')
            except UpstreamError as error:
                if error.sqlstate != "42704":  # it is gone: the answer to a former attempt was lost
                    raise
            self._slots_lost.discard(self.server)
        try:
            await session.execute(f'CREATE_REPLICATION_SLOT "{self.name}" PHYSICAL')
        except UpstreamError as error:
            if error.sqlstate != "42710":  # it is there: the answer to a former attempt was lost
                raise

    def reported(self, flush: int) -> None:
        """It has told its server how far it is."""
        if self.server in self._slots_made:
            self._world.server_of(self.server).slot_reported(self.name, flush)

    def _rewind(self, history: TimelineHistory) -> None:
        """Leave WAL that the new timeline's history does not have, as pg_rewind does."""
        own = self._world.cluster.history(self.timeline)
        shared = max(timeline for timeline in (*own.ancestors, own.timeline) if history.contains(timeline))
        ends = [self.position]
        ends += [
            int(switch[0]) for line in (own, history) if (switch := line.switchpoint(shared)) is not None
        ]
        if shared != self.timeline or min(ends) < self.position:
            self._leave(shared, min(ends))

    def _leave(self, timeline: int, position: int) -> None:
        self.rewound += 1
        self.timeline, self.position = timeline, position
        self._world.note(f"{self.name} is rewound to {timeline}:{position:X}")


@implementer(ICopyReceiver)
class _Stream:
    """One stream."""

    def __init__(self, world: World, standby: Standby, session: IUpstreamSession, start: int) -> None:
        self._world = world
        self._standby = standby
        self._session = session
        self._received = start
        self._timer: IDelayedCall | None = None
        self.ended: Deferred[Sequence[Row]] = Deferred()

    def begin(self) -> None:
        """It has begun, unless it is over."""
        if not self.ended.called:
            self._report()

    def wal_message_received(self, body: bytes | memoryview) -> None:
        """See `ICopyReceiver`."""
        if body[:1] == b"k":
            if body[17]:
                self._tell()
            return
        (start,) = struct.unpack_from("!Q", body, 1)
        if start != self._received:
            self._world.broken(f"{self._standby.name} got WAL at {start:X}, expected {self._received:X}")
        self._received = start + len(body) - _WAL_HEADER
        self._standby.position = max(self._standby.position, self._received)

    def batch_received(self) -> None:
        """See `ICopyReceiver`."""
        world, standby = self._world, self._standby
        self._tell()
        if world.clock.seconds() < standby.slow_until:
            self._session.pauseProducing()
            world.clock.callLater(world.random.uniform(0.1, 1.0), self._session.resumeProducing)

    def stream_ended(self, rows: Sequence[Row]) -> None:
        """See `ICopyReceiver`."""
        self._stop()
        self.ended.callback(rows)

    def session_lost(self, error: UpstreamError) -> None:
        """See `ICopyReceiver`."""
        self._stop()
        self.ended.errback(error)

    def _report(self) -> None:
        self._tell()
        self._timer = self._world.clock.callLater(_STATUS_INTERVAL, self._report)

    def _stop(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _tell(self) -> None:
        standby = self._standby
        if self._world.clock.seconds() < standby.silent_until:
            return
        standby.reported(self._received)
        status = struct.pack("!QQQqB", self._received, self._received, self._received, 0, 0)
        self._session.send(b"r" + status)
