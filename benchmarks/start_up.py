"""
How long a start takes on an archive of 100,000 segments: until the first byte of WAL is with a client.

    python -m benchmarks.start_up

The segments are sparse files with valid headers, but for the last, which has records.  The time runs from the
start of the program; an archive of two segments says how much of it is the program.  Its modules are compiled
before, as they are where it has been installed.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.harness import SEGMENT, Measure, alternate, command_line, machine
from benchmarks.relayed import start_streaming
from walsender.lsn import LSN
from walsender.testing.processes import WalsenderProcess, workspace
from walsender.testing.wal_maker import WalMaker

if TYPE_CHECKING:
    from pathlib import Path

FIRST = 1 << 40  # position of the first segment


@dataclass
class Archive:
    """So many segments."""

    name: str
    path: Path
    count: int

    def make(self) -> None:
        """Write them."""
        self.path.mkdir()
        maker = WalMaker(segment_size=SEGMENT, start=FIRST + (self.count - 1) * SEGMENT)
        maker.fill_to(maker.position + (1 << 20))
        maker.write(self.path)
        first = self.path / maker.name(FIRST // SEGMENT + self.count - 1)
        header = bytearray(first.read_bytes()[:40])
        for number in range(FIRST // SEGMENT, FIRST // SEGMENT + self.count - 1):
            header[8:16] = (number * SEGMENT).to_bytes(8, "little")
            with (self.path / maker.name(number)).open("wb") as file:
                file.write(header)
                file.truncate(SEGMENT)

    def start(self) -> tuple[float, float]:
        """Start a server; return seconds until it listens, and until a client has the first byte."""
        begun = time.perf_counter()
        log = self.path.with_suffix(".log")
        with WalsenderProcess(self.path, log_file=log, timeout_s=120) as server:
            listening = time.perf_counter() - begun
            position = LSN(FIRST + (self.count - 1) * SEGMENT)
            message = None
            while message is None or message.kind != b"d":  # refused until the end of WAL is known
                server.check_running()
                with start_streaming(server.port, position) as client:
                    message = client.until(b"d", b"E")[-1]
            return listening, time.perf_counter() - begun


def main() -> None:
    """Parse the command line, make archives, run, report."""
    parser = command_line(__doc__, rounds=5)
    parser.add_argument("--segments", type=int, default=100_000, help="in the archive (100,000)")
    options = parser.parse_args()
    rounds, count = (1, 100) if options.quick else (options.rounds, options.segments)
    with ExitStack() as stack:
        space = stack.enter_context(workspace())
        archives = [Archive(f"{each} segments", space / str(each), each) for each in (2, count)]
        for archive in archives:
            archive.make()
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(space / "compiled")
        archives[0].start()
        print(machine())
        measures = [Measure("s until it listens", 2), Measure("s until the first byte", 2)]
        alternate(archives, rounds, measures, Archive.start)


if __name__ == "__main__":
    main()
