"""``python -m walsender.simulate``: run seeds, and tell of those that break an invariant."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from twisted.logger import globalLogBeginner

from walsender.simulate.run import run


def main() -> int:
    """Run what the command line says; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m walsender.simulate", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--runs", type=int, default=1, help="how many seeds, one after another")
    parser.add_argument("--history", action="store_true", help="print all that happened")
    parser.add_argument("--counts", action="store_true", help="print how often what happened, over all runs")
    options = parser.parse_args()
    # Before that Twisted keeps every event, and with it the world that it is about.
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
    counts: Counter[str] = Counter()
    failed = 0
    begin = time.monotonic()
    for seed in range(options.seed, options.seed + options.runs):
        outcome = run(seed)
        counts.update(outcome.counts)
        if options.history:
            sys.stdout.write("".join(f"{line}\n" for line in outcome.history))
        if outcome.failure:
            failed += 1
            faults = [line for line in outcome.history if not line[9:].startswith("   (")]
            summary = "; ".join(" ".join(line.split()) for line in faults[-12:-1])
            sys.stdout.write(f"seed {seed}: {outcome.failure.strip()} [{summary}]\n")
            sys.stdout.flush()
    if options.counts:
        sys.stdout.write("".join(f"{number:12} {what}\n" for what, number in sorted(counts.items())))
    seconds = time.monotonic() - begin
    sys.stdout.write(f"{options.runs} runs in {seconds:.1f} s, {failed} failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
