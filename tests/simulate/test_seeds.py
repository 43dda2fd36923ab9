"""Seeded runs of the whole relay, and bugs that they must find."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest
from planted import PLANTED
from worlds import planted_failure

from walsender.simulate.run import run

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

# As many as half a minute gives; `tox -e simulate` runs thousands, from another first seed.
RUNS = int(os.environ.get("WALSENDER_SIMULATE_RUNS", "200"))
FIRST_SEED = int(os.environ.get("WALSENDER_SIMULATE_SEED", "1"))
BLOCK = 25

# A planted bug must be found by one of so many seeds.
MOST_SEEDS = 120


@pytest.mark.parametrize("first", range(FIRST_SEED, FIRST_SEED + RUNS, BLOCK))
def test_noSeedBreaksAnInvariant(elsewhere: ProcessPoolExecutor, first: int) -> None:
    """Whatever happens, nothing that was promised is lost, and in the end everybody has everything."""
    failures = []
    seeds = range(first, min(first + BLOCK, FIRST_SEED + RUNS))
    for seed, outcome in zip(seeds, elsewhere.map(run, seeds), strict=True):
        if outcome.failure:
            failures.append(f"seed {seed}: {outcome.failure}")
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("name", PLANTED)
def test_aPlantedBugIsFound(elsewhere: ProcessPoolExecutor, name: str) -> None:
    """Each bug breaks the invariant that it should."""
    _, said = PLANTED[name]
    for seed in range(1, MOST_SEEDS + 1):
        if re.search(said, elsewhere.submit(planted_failure, name, seed).result()):
            return
    pytest.fail(f"{MOST_SEEDS} seeds have not found it")


def test_aSeedIsRepeatedExactly(elsewhere: ProcessPoolExecutor) -> None:
    """The same seed gives the same history, whatever ran before."""
    first, _, again = elsewhere.map(run, (7, 8, 7))
    assert (first.history, first.counts) == (again.history, again.counts)


def test_everyKindOfTroubleHappens(elsewhere: ProcessPoolExecutor) -> None:
    """Some seeds together have every fault that there is, and standbys that get WAL all the same."""
    counts: dict[str, int] = {}
    for outcome in elsewhere.map(run, range(1, 41)):
        for what, number in outcome.counts.items():
            counts[what] = counts.get(what, 0) + number
    wanted = {
        "kill",
        "power failure",
        "end inside an operation",
        "orderly stop",
        "reset",
        "stall",
        "primary restarts",
        "promotion",
        "full disk",
        "disk error",
        "short writes",
        "slow disk",
        "slow standby",
        "silent standby",
        "segment switch",
        "standbys rewound",
        "new standby",
        "segments removed",
        "segments fetched",
        "messages sent by the thread of the commits",
        "slots lost",
        "disk: sync failed",
        "disk: write failed",
        "disk: rename failed",
        "disk: short write",
        "disk: full",
        "disk: power lost",
    }
    assert not {what for what in wanted if not counts.get(what)}
    assert counts["bytes received"] > 20 << 20
