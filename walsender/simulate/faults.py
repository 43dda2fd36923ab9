"""What happens to the world, drawn from its seed: WAL is written, and everything goes wrong."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsender.simulate.relay import Relay
    from walsender.simulate.world import World

MOST_WAL: Final = 4 << 20  # bytes
FAILING: Final = ("write", "write", "sync", "sync", "sync", "rename", "create", "remove", "sync_directory")


class Faults:
    """Writes WAL and makes trouble for some time."""

    def __init__(self, world: World, seconds: float) -> None:
        self._world = world
        self._random = world.random
        self._until = seconds
        self._most_promotions = world.random.choice([0, 1, 1, 2, 3])
        self._trouble = world.random.choice([0.3, 1.0, 3.0])  # seconds between two faults
        self._kinds: dict[str, tuple[float, Callable[[], str]]] = {
            "kill": (2, self._kill),
            "power failure": (2, self._power_failure),
            "end inside an operation": (4, self._end_inside),
            "orderly stop": (0.5, self._orderly_stop),
            "reset": (2, self._reset),
            "stall": (2, self._stall),
            "primary restarts": (1, self._primary_restarts),
            "promotion": (1, self._promotion),
            "full disk": (1, self._full_disk),
            "disk error": (4, self._disk_error),
            "short writes": (0.5, self._short_writes),
            "slow disk": (0.7, self._slow_disk),
            "slow standby": (0.7, self._slow_standby),
            "silent standby": (0.7, self._silent_standby),
            "new standby": (0.7, self._new_standby),
            "segment switch": (1, self._segment_switch),
        }

    def start(self) -> None:
        """Begin."""
        self._world.clock.callLater(0.05, self._write)
        self._world.clock.callLater(self._random.uniform(0.1, 2), self._fault)

    @property
    def _over(self) -> bool:
        return self._world.clock.seconds() - 1000 >= self._until

    @property
    def _relay(self) -> Relay:
        return self._random.choice(list(self._world.relays.values()))

    def _write(self) -> None:
        world, cluster = self._world, self._world.cluster
        if self._over:
            return
        if world.primary is not None and cluster.position < MOST_WAL + cluster.geometry.segment_size:
            for _ in range(self._random.choice([1, 1, 2, 5, 20])):
                cluster.write(self._random.choice([64, 200, 3000, 9000, 20_000]))
            world.source.grew()
        world.clock.callLater(self._random.expovariate(8), self._write)

    def _fault(self) -> None:
        if self._over:
            return
        kinds = list(self._kinds)
        (kind,) = self._random.choices(kinds, [self._kinds[name][0] for name in kinds])
        said = self._kinds[kind][1]()
        if said:
            self._world.count(kind)
            self._world.note(f"{kind}: {said}")
        self._world.clock.callLater(self._random.expovariate(1 / self._trouble), self._fault)

    def heal(self) -> None:
        """End all trouble."""
        world = self._world
        world.note("all trouble is over")
        world.start_primary()
        for relay in world.relays.values():
            relay.disk.power = None
            relay.disk.failing.clear()
            relay.disk.room = None
            relay.disk.short_writes = 0
            relay.start_if_down()
            if relay.process is not None:
                relay.process.slowness = 1.0
        for standby in world.standbys:
            standby.slow_until = standby.silent_until = 0.0
        world.cluster.write(500)
        world.source.grew()

    # Each returns what it has done; nothing if that was not possible

    def _kill(self) -> str:
        relay = self._relay
        relay.kill()
        return relay.name

    def _power_failure(self) -> str:
        relay = self._relay
        relay.lose_power()
        return relay.name

    def _end_inside(self) -> str:
        relay = self._relay
        relay.keeps_page_cache = self._random.random() < 0.4
        relay.disk.power = self._random.randrange(1, 30)
        what = "killed" if relay.keeps_page_cache else "without power"
        return f"{relay.name} will be {what} after {relay.disk.power} operations"

    def _orderly_stop(self) -> str:
        relay = self._relay
        if relay.factory is None:
            return ""
        relay.shut_down()
        return relay.name

    def _reset(self) -> str:
        connections = [connection for connection in self._world.connections if not connection.over]
        if not connections:
            return ""
        self._random.choice(connections).reset()
        return "a connection"

    def _stall(self) -> str:
        connections = [connection for connection in self._world.connections if not connection.over]
        if not connections:
            return ""
        seconds = self._random.choice([0.2, 2.0, 15.0])
        self._random.choice(connections).stall(seconds)
        return f"a connection for {seconds} s"

    def _primary_restarts(self) -> str:
        self._world.stop_primary()
        self._world.clock.callLater(self._random.uniform(0.1, 3), self._world.start_primary)
        return "now"

    def _promotion(self) -> str:
        world = self._world
        if not self._most_promotions:
            return ""
        self._most_promotions -= 1
        lost = self._random.choice([0, 0, 1, 3, 10])
        in_place = self._random.random() < 0.5
        if not in_place:
            world.stop_primary()
            world.clock.callLater(self._random.uniform(0.1, 3), world.start_primary)
        old, end = world.cluster.timeline, world.cluster.position
        world.cluster.promote(lost)
        world.cluster.write(100)
        world.source.grew()
        begin = world.cluster.begin(world.cluster.timeline)
        where = "in place" if in_place else "of another server"
        return f"{where}: {old} ended at {end:X}, {world.cluster.timeline} begins at {begin:X}"

    def _full_disk(self) -> str:
        relay = self._relay
        relay.disk.room = self._random.choice([0, 1000, 300_000, 1_000_000])
        self._world.clock.callLater(self._random.uniform(0.5, 5), setattr, relay.disk, "room", None)
        return f"{relay.name} has room for {relay.disk.room} bytes"

    def _disk_error(self) -> str:
        relay = self._relay
        operation = self._random.choice(FAILING)
        number = self._random.choice([errno.EIO, errno.EIO, errno.ENOSPC])
        times = self._random.choice([1, 1, 1, 2, 4])
        relay.disk.failing[operation] = [number] * times
        return f"{operation} at {relay.name} fails with {errno.errorcode[number]}, {times} times"

    def _short_writes(self) -> str:
        relay = self._relay
        relay.disk.short_writes = 0.5
        self._world.clock.callLater(self._random.uniform(0.5, 5), setattr, relay.disk, "short_writes", 0)
        return relay.name

    def _slow_disk(self) -> str:
        relay = self._relay
        if relay.process is None:
            return ""
        relay.process.slowness = self._random.choice([20, 300])
        self._world.clock.callLater(self._random.uniform(0.5, 5), setattr, relay.process, "slowness", 1.0)
        return relay.name

    def _slow_standby(self) -> str:
        standby = self._random.choice(self._world.standbys)
        standby.slow_until = self._world.clock.seconds() + self._random.uniform(1, 8)
        return standby.name

    def _silent_standby(self) -> str:
        standby = self._random.choice(self._world.standbys)
        standby.silent_until = self._world.clock.seconds() + self._random.uniform(1, 20)
        return standby.name

    def _new_standby(self) -> str:
        standby = self._random.choice(self._world.standbys)
        if not self._world.relays[standby.server].fetches:
            return ""
        standby.made_anew = True
        return standby.name

    def _segment_switch(self) -> str:
        world = self._world
        if world.primary is None or world.cluster.position > MOST_WAL:
            return ""
        world.cluster.switch_segment()
        world.source.grew()
        return f"{world.cluster.position:X}"
