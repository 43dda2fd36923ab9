"""``python -m walsender.simulate``: run seeds, and tell of those that break an invariant."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from twisted.logger import globalLogBeginner

from walsender.simulate.run import Outcome, run

if TYPE_CHECKING:
    from collections.abc import Iterator


# What was killed in a world is not all freed with it: a process that has seen so many makes way for another.
_MOST_RUNS = 50


def _begin_logging() -> None:
    """Before that Twisted keeps every event, and with it the world that it is about."""
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)


def _outcomes(seeds: range, jobs: int) -> Iterator[Outcome]:
    """Run seeds, each in one of some processes, and return how they ended, in order."""
    if len(seeds) == 1:
        _begin_logging()
        yield run(seeds[0])
        return
    with multiprocessing.Pool(jobs, _begin_logging, maxtasksperchild=_MOST_RUNS) as pool:
        yield from pool.imap(run, seeds)


def main() -> int:
    """Run what the command line says; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m walsender.simulate", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--runs", type=int, default=1, help="how many seeds, one after another")
    parser.add_argument("--history", action="store_true", help="print all that happened")
    parser.add_argument("--counts", action="store_true", help="print how often what happened, over all runs")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    failed = 0
    begin = time.monotonic()
    seeds = range(options.seed, options.seed + options.runs)
    for outcome in _outcomes(seeds, options.jobs):
        counts.update(outcome.counts)
        if options.history:
            sys.stdout.write("".join(f"{line}\n" for line in outcome.history))
        if outcome.failure:
            failed += 1
            faults = [line for line in outcome.history if not line[9:].startswith("   (")]
            summary = "; ".join(" ".join(line.split()) for line in faults[-12:-1])
            sys.stdout.write(f"seed {outcome.seed}: {outcome.failure.strip()} [{summary}]\n")
            sys.stdout.flush()
    if options.counts:
        sys.stdout.write("".join(f"{number:12} {what}\n" for what, number in sorted(counts.items())))
    seconds = time.monotonic() - begin
    sys.stdout.write(f"{options.runs} runs in {seconds:.1f} s, {failed} failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
