"""One run: trouble for some time, then peace, in which everybody must come level."""

from __future__ import annotations

import gc
import traceback
from dataclasses import dataclass, field
from typing import Final

from walsender.simulate.faults import Faults
from walsender.simulate.world import Failed, World

TROUBLE: Final = 20.0  # seconds
PEACE: Final = 120.0  # seconds, at most


@dataclass(frozen=True)
class Outcome:
    """
    How a run ended.

    :ivar failure: the invariant that was broken; empty: none.
    """

    seed: int
    failure: str
    history: list[str]
    counts: dict[str, int] = field(default_factory=dict)


def run(seed: int) -> Outcome:
    """Return how the run of *seed* ends; always the same."""
    gc.disable()  # which file is closed when must not depend on what ran before
    gc.freeze()  # what is there already need not be looked through at the end
    try:
        return _outcome(World(seed))
    finally:
        gc.unfreeze()
        gc.enable()


def _outcome(world: World) -> Outcome:
    try:
        _run(world)
    except Failed as failed:
        return Outcome(world.seed, str(failed), world.history, world.counts)
    except Exception as error:  # noqa: BLE001 -- of the relay or ours: the other seeds go on
        where = traceback.format_exception_only(error)[-1].strip()
        return Outcome(world.seed, f"an exception that nobody caught: {where}", world.history, world.counts)
    finally:
        world.close()
    return Outcome(world.seed, "", world.history, world.counts)


def _run(world: World) -> None:
    faults = Faults(world, TROUBLE)
    world.start()
    faults.start()
    world.run_until(TROUBLE)
    faults.heal()
    while not world.level:
        if world.clock.seconds() > 1000 + TROUBLE + PEACE:
            places = [f"{standby.name} {standby.timeline}:{standby.position:X}" for standby in world.standbys]
            places += [
                f"{relay.name} {relay.source.held_timeline}:{relay.source.held_position:X}"
                for relay in world.relays.values()
                if relay.source is not None
            ]
            end = f"{world.cluster.timeline}:{world.cluster.position:X}"
            world.broken(f"not level after {PEACE} s of peace: {', '.join(places)}; the end is {end}")
        world.step()
    for relay in world.relays.values():
        relay.server.disk_crashed()
        for operation, times in relay.disk.counts.items():
            world.count(f"disk: {operation}", times)
    world.count("standbys rewound", sum(standby.rewound for standby in world.standbys))
    world.count("timelines", world.cluster.timeline)
    world.check()
