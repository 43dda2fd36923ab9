"""
What the benchmarks share: turns, the table, and the operating system's accounting.

Servers take turns within each round, and a ratio is made within a round, so that a machine that speeds
up or slows down moves both.  The first of the contenders is the yardstick.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

SEGMENT = 16 << 20
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Contender(Protocol):
    """Whatever takes its turn."""

    name: str


AnyContender = TypeVar("AnyContender", bound=Contender)


@dataclass(frozen=True)
class Measure:
    """
    One thing that is measured.

    :ivar title: with its unit.
    :ivar digits: after the point.
    """

    title: str
    digits: int = 0


def command_line(doc: str, rounds: int) -> argparse.ArgumentParser:
    """Return a parser of the options that all benchmarks have; *doc* is the module's."""
    parser = argparse.ArgumentParser(description=doc.partition("\n\n")[0].strip())
    parser.add_argument(
        "--rounds", type=int, default=rounds, help=f"how often each takes its turn ({rounds})"
    )
    parser.add_argument("--quick", action="store_true", help="as little as possible: does it work?")
    return parser


def alternate(
    contenders: Sequence[AnyContender],
    rounds: int,
    measures: Sequence[Measure],
    run: Callable[[AnyContender], Sequence[float]],
) -> None:
    """Let each contender run in each round, and print the table; *run* returns one number per measure."""
    results: dict[str, list[Sequence[float]]] = {each.name: [] for each in contenders}
    for number in range(rounds):
        for each in contenders:
            results[each.name].append(run(each))
        line = ", ".join(f"{name} {taken[-1][0]:.{measures[0].digits}f}" for name, taken in results.items())
        print(f"round {number + 1}: {line}", flush=True)
    print(f"\n{rounds} rounds, medians; ratios to the first, made within a round\n")
    print_table(measures, results)


def print_table(measures: Sequence[Measure], results: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Print medians, spread and ratios as Markdown; *results* has a row of numbers per name and round."""
    width = max(map(len, results))
    heads = [f"{measure.title} | lowest to highest | ratio" for measure in measures]
    print(f"| {'':{width}} | {' | '.join(heads)} |")
    print(f"|{'---|' * (1 + 3 * len(measures))}")
    yardstick = next(iter(results.values()))
    for name, taken in results.items():
        line = f"| {name:{width}} |"
        for index, measure in enumerate(measures):
            mine = [row[index] for row in taken]
            ratios = [a / row[index] if row[index] else 0.0 for a, row in zip(mine, yardstick, strict=False)]
            low, middle, high = (f"{f(mine):.{measure.digits}f}" for f in (min, statistics.median, max))
            line += f" {middle} | {low} to {high} | {statistics.median(ratios):.2f} |"
        print(line)


def machine() -> str:
    """Return what the numbers depend on besides the servers."""
    versions = f"Python {platform.python_version()}, Twisted {importlib.metadata.version('twisted')}"
    return f"{versions}, {os.cpu_count()} cores, Linux {platform.release().partition('-')[0]}"


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def descendants(process: int) -> Iterator[int]:
    """Yield a process and all below it."""
    yield process
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from descendants(int(child))


def cpu_seconds(process: int) -> float:
    """Return the CPU time of a process, of its children that live, and of those that it has reaped."""
    ticks = 0
    for each in descendants(process):
        ticks += sum(map(int, Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return ticks / TICKS_PER_S


def bytes_read(process: int) -> int:
    """Return how much a process and those below it that live have had read from disks."""
    files = (Path(f"/proc/{each}/io").read_text() for each in descendants(process))
    return sum(int(text.partition("\nread_bytes: ")[2].partition("\n")[0]) for text in files)
