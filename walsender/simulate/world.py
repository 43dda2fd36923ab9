"""`World`: a primary, relays and standbys, and all that happens to them between a seed and its end."""

from __future__ import annotations

import gc
import random
import sys
from typing import TYPE_CHECKING, cast

from twisted.logger import Logger, LogLevel, formatEvent, globalLogPublisher

from walsender.auth import LocalAuthorizer
from walsender.retention import Limits
from walsender.sender import WalSenderFactory
from walsender.simulate.clock import WorldClock
from walsender.simulate.cluster import SEGMENT_SIZE, Cluster
from walsender.simulate.machine import Process
from walsender.simulate.network import Connection
from walsender.simulate.primary import PrimarySource
from walsender.simulate.relay import TIMEOUT, Relay
from walsender.simulate.standby import Standby
from walsender.simulate.witness import Server, Witness
from walsender.wire.dialect import dialect_of

if TYPE_CHECKING:
    from twisted.logger import ILogObserver, LogEvent
    from twisted.python.failure import Failure

    from walsender.simulate.client import Session

PRIMARY = "primary"
_MOST_STEPS = 200_000  # a usual run has some thousand


class Failed(AssertionError):
    """An invariant was broken; its message says which, and how it came to that."""


class World:
    """
    One run.

    :ivar history: what has happened, as text.
    :ivar counts: how often.
    """

    log = Logger()

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)  # noqa: S311 -- it is to be repeated
        self.clock = WorldClock()
        self.clock.advance(1000)
        self.history: list[str] = []
        self.counts: dict[str, int] = {}
        self.failure = ""
        self._closed = False
        self.cluster = Cluster()
        self.source = PrimarySource(self.cluster)
        self.primary: Process | None = None
        self.primary_server = Server(self, PRIMARY, self.cluster, None)
        self._factory: WalSenderFactory | None = None
        self.connections: list[Connection] = []
        first = self._make_relay("relay1", PRIMARY)
        self.relays = {"relay1": first}
        if self.random.random() < 0.4:
            self.relays["relay2"] = second = self._make_relay("relay2", "relay1")
            # Otherwise it may be left behind for good, as a standby may that has no slot.
            first.fetches = first.fetches or first.limits.keep is not None
            second.has_slot = first.limits.slots is None and self.random.random() < 0.5
        self.standbys = [self._make_standby(number) for number in range(1, self.random.randrange(2, 5))]

    def _make_relay(self, name: str, upstream: str) -> Relay:
        limits = Limits()
        if self.random.random() < 0.5:
            slots = self.random.choice([None, None, 0, SEGMENT_SIZE, 2 * SEGMENT_SIZE])
            limits = Limits(self.random.choice([0, 0, SEGMENT_SIZE, 2 * SEGMENT_SIZE]), slots)
        return Relay(self, name, upstream, limits, fetches=self.random.random() < 0.7)

    def _make_standby(self, number: int) -> Standby:
        servers = self.random.sample(list(self.relays), len(self.relays))
        if self.random.random() < 0.5:
            servers = servers[:1]
        return Standby(self, f"standby{number}", servers, slot=self.random.random() < 0.5)

    # What is told

    def note(self, what: str) -> None:
        """Write down what has happened."""
        self.history.append(f"{self.clock.seconds() - 1000:9.4f} {what}")

    def remark(self, what: str) -> None:
        """Write down what is of interest to who looks for a reason."""
        self.note(f"  ({what})")

    def count(self, what: str, number: int = 1) -> None:
        """Count what happens."""
        self.counts[what] = self.counts.get(what, 0) + number

    def broken(self, what: str) -> None:
        """An invariant does not hold; the first one counts."""
        if not self.failure:
            self.failure = what
            self.note(f"BROKEN: {what}")

    def bug(self, failure: Failure) -> None:
        """Something has failed that must not."""
        self.broken(f"unexpected failure: {failure.getTraceback()}")

    def check(self) -> None:
        """
        Look whether all is as it must be.

        :raises Failed: it is not.
        """
        if self.failure:
            raise Failed(self.failure)

    def _logged(self, event: LogEvent) -> None:
        """Take what the program writes to its log."""
        if self._closed:
            return
        if "log_failure" in event:
            self.broken(f"a traceback in the log: {event['log_failure'].getTraceback()}")
        elif event["log_level"] >= LogLevel.warn:
            self.remark(formatEvent(event))

    # Who is there

    def server(self, relay: Relay) -> Server:
        """Return what is to be remembered of a relay."""
        return Server(self, relay.name, self.cluster, relay.ledger)

    def server_of(self, name: str) -> Server:
        """Return what is remembered of a server."""
        return self.primary_server if name == PRIMARY else self.relays[name].server

    def witness(self, server: str, client: Relay | Standby) -> Witness:
        """Return who looks at a connection."""
        remembered = client.server if isinstance(client, Relay) else client.me
        return Witness(self, self.cluster, self.server_of(server), remembered)

    def dial(self, session: Session, process: Process, server: str) -> bool:
        """Connect a client, if somebody listens."""
        factory, other = self._factory, self.primary
        if server != PRIMARY:
            factory, other = self.relays[server].factory, self.relays[server].process
        if factory is None or other is None:
            return False
        protocol = factory.buildProtocol(None)
        if protocol is None:
            return False
        self.count("connections")
        self.connections = [connection for connection in self.connections if not connection.over]
        self.connections.append(Connection(self.clock, self.random, (session, process), (protocol, other)))
        return True

    def process_died(self, process: Process, *, silently: bool) -> None:
        """
        Let those connected to it find out.

        :param silently: there is no kernel that would tell them; they find it back, or run into a timeout.
        """
        for connection in self.connections:
            if silently:
                connection.stall(self.random.uniform(0.5, 15.0))
            connection.process_died(process)

    # The primary

    def start_primary(self) -> None:
        """Start it if it does not run."""
        if self.primary is not None:
            return
        self.primary = Process(self.clock, self.random, lambda: None)
        self._factory = WalSenderFactory(
            self.primary.reactor,
            self.source,
            dialect_of(self.cluster.server_version, "little"),
            LocalAuthorizer(),
            wal_sender_timeout=TIMEOUT,
            sendfile=False,
        )

    def stop_primary(self) -> None:
        """It crashes; what it has sent was durable there."""
        process, self.primary, self._factory = self.primary, None, None
        if process is not None:
            process.end()
            self.process_died(process, silently=self.random.random() < 0.3)

    # Time

    def start(self) -> None:
        """Start all machines."""
        self._observer = cast("ILogObserver", self._logged)
        globalLogPublisher.addObserver(self._observer)
        self.start_primary()
        for relay in self.relays.values():
            relay.start()
        for standby in self.standbys:
            standby.start()

    def step(self) -> None:
        """
        Let the next thing happen.

        :raises Failed: it was a wrong one.
        """
        self.clock.step()
        self.count("steps")
        if self.counts["steps"] > _MOST_STEPS:
            self.broken(
                f"{_MOST_STEPS} things have happened, and there is no end to it: {self.clock.calls[:3]}"
            )
        self.check()

    def run_until(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.callLater(max(0.0, seconds + 1000 - self.clock.seconds()), lambda: None)
        while self.clock.seconds() - 1000 < seconds:
            self.step()

    @property
    def level(self) -> bool:
        """Whether everybody has all WAL."""
        end = self.cluster.timeline, self.cluster.position
        sources = [relay.source for relay in self.relays.values() if relay.process is not None]
        return (
            len(sources) == len(self.relays)
            and all(
                source is not None and source.ready and (source.timeline, source.flush_position) == end
                for source in sources
            )
            and all((standby.timeline, standby.position) == end for standby in self.standbys)
        )

    def close(self) -> None:
        """Let go of everything."""
        self._closed = True
        for relay in self.relays.values():
            relay.close()
        self.source.close()
        self.clock.calls.clear()
        self.relays.clear()
        self.standbys.clear()
        self.connections.clear()
        self.primary = self._factory = None
        # Programs that were killed leave coroutines, which Python ends by an exception of its own.
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        gc.collect()
        sys.unraisablehook = hook
        globalLogPublisher.removeObserver(self._observer)


__all__ = ["PRIMARY", "Failed", "World"]
