"""``python -m walsender check DIR``: tells what is there, a line for each run of segments."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

from walsender.errors import WalFileError
from walsender.source.running_server import running_server
from walsender.wal import REAL_FILES, parse_file_name, scan_directory, segment_name

from .findings import CheckedRun, check_runs, count, faults, streamable
from .progress import Bar, Terminal, WatchedFiles

if TYPE_CHECKING:
    from walsender.lsn import Geometry
    from walsender.wal import WalDirectory

CLEAN: Final = 0
NOT_CLEAN: Final = 1
NOT_CHECKED: Final = 2
INTERRUPTED: Final = 130


def run(path: str, output: Terminal | None = None, errors: Terminal | None = None) -> int:
    """
    Check the directory at *path* and return the exit status.

    :returns: 0: all is good; 1: something is not; 2: it could not be checked.
    """
    output, errors = output or sys.stdout, errors or sys.stderr
    try:
        return _Check(path, output, errors).run()
    except KeyboardInterrupt:
        errors.write("walsender check: interrupted\n")
        return INTERRUPTED


class _Check:
    def __init__(self, path: str, output: Terminal, errors: Terminal) -> None:
        self._path = os.path.abspath(path)  # noqa: PTH100 -- links are to be followed by the system
        self._output = output
        self._errors = errors
        self._bar = Bar(errors, 0)
        self._done = 0
        self._files = WatchedFiles(REAL_FILES, self._opened)
        self._problems = 0
        self._geometry: Geometry | None = None
        self._reading: range | None = None

    def run(self) -> int:
        if (server := running_server(self._path)) is not None:
            return self._cannot(
                f'WAL directory "{self._path}" belongs to a running PostgreSQL server (process '
                f"{server.process_id}), which recycles its files"
            )
        try:
            os.listdir(self._path)  # noqa: PTH208 -- only whether it can be
        except OSError as error:
            return self._cannot(f'could not open WAL directory "{self._path}": {error.strerror}')
        try:
            directory = scan_directory(self._files, self._path)
        except WalFileError as error:
            return self._end(error.message)
        if directory.identity is None:
            reason = next((f": {error.message}" for error in directory.unusable.values()), "")
            return self._end(f'WAL directory "{self._path}" contains no WAL segment{reason}')
        return self._check(directory, directory.identity.geometry)

    def _check(self, directory: WalDirectory, geometry: Geometry) -> int:
        identity = directory.identity
        assert identity is not None, "just looked at"
        self._say(
            f"{self._path}: PostgreSQL {identity.format.name}, "
            f"system identifier {identity.system_identifier}, segments of {geometry.segment_size >> 20} MB"
        )
        self._bar = Bar(self._errors, sum(sum(map(len, runs)) for runs in directory.ranges.values()))
        for fault in faults(directory):
            self._problem(fault)
        self._geometry = geometry
        for found in check_runs(self._files, directory, partial(setattr, self, "_reading")):
            self._done += len(found.segments)
            self._tell(found, geometry)
        try:
            range_ = streamable(directory)
        except WalFileError:
            range_ = None  # which has been told of
        if range_ is not None:
            timeline, begin, end = range_
            self._say(f"would be served: {geometry.lsn(begin)} to {geometry.lsn(end)} on timeline {timeline}")
        return self._end()

    def _tell(self, found: CheckedRun, geometry: Geometry) -> None:
        first, last = (
            segment_name(found.timeline, number, geometry)
            for number in (found.segments.start, found.segments.stop - 1)
        )
        where = (
            f"timeline {found.timeline}, {first} to {last} ({count(len(found.segments), 'segment')}): "
            if len(found.segments) > 1
            else f"timeline {found.timeline}, {first}: "
        )
        if found.verified is None:
            self._problem(where + found.error)
            return
        good = found.verified
        unused = ""
        if found.unused:
            unused = f"; {count(found.unused, 'segment')} behind that without WAL"
        self._say(
            f"{where}{count(good.records, 'good record')} from {geometry.lsn(good.begin)} "
            f"to {geometry.lsn(good.end)}{unused}"
        )

    def _opened(self, name: str) -> None:
        """Show how far it is: in what is read for other reasons, nothing gets on."""
        done = self._done
        if self._reading is not None and self._geometry is not None:
            done += max(0, parse_file_name(name).number(self._geometry) - self._reading.start)
            self._bar.show(done, name)

    def _say(self, line: str) -> None:
        self._bar.clear()
        self._output.write(f"{line}\n")
        self._output.flush()

    def _problem(self, line: str) -> None:
        self._problems += 1
        self._say(line)

    def _end(self, fault: str = "") -> int:
        if fault:
            self._problem(fault)
        self._say(f"not clean: {count(self._problems, 'problem')}" if self._problems else "clean")
        return NOT_CLEAN if self._problems else CLEAN

    def _cannot(self, reason: str) -> int:
        self._errors.write(f"walsender check: {reason}\n")
        return NOT_CHECKED
