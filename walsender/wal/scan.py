"""
Listing a WAL directory, and making a `WalDirectory` of it.

A scan lists names once and opens only the first and last segment of each run.  Names are looked at
by the thousand, not one by one: an archive of 100,000 segments takes a tenth of a second.
"""

from __future__ import annotations

import re
import struct
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from walsender.errors import DataCorrupted, WalFileError, file_error

from .directory import WalDirectory, runs_of
from .files import read_file
from .history import TimelineHistory
from .segment import (
    COMPLETE_FORMS,
    FORMS,
    PARTIAL,
    SEGMENT_NAME,
    FileKind,
    WalIdentity,
    parse_file_name,
    read_identity,
    segment_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .files import FileOperations

MAX_HISTORY_SIZE: Final = 1 << 20
"""Most bytes of a history file that are read: room for some ten thousand promotions."""

_BASE_LENGTH: Final = 24
_HEXADECIMAL: Final = re.compile("[0-9A-F]*")
_NO_TIMELINE: Final = "00000000"
_PARTS: Final = struct.Struct(">III")


def scan_directory(files: FileOperations, path: str) -> WalDirectory:
    """
    List the directory at *path* and return what is there.

    A file that is not what its name says, is still being copied in or has just vanished is
    noted in `WalDirectory.unusable`, no more.

    :raises WalFileError: the directory cannot be listed.
    :raises DataCorrupted: it holds WAL of two clusters, which nobody can have meant.
    """
    try:
        names = files.list_directory(path)
    except OSError as error:
        raise file_error(f'could not open directory "{path}"', error) from error
    return _Scan(files, path).run(names)


class _Scan:
    """One scan of a directory, while it runs."""

    def __init__(self, files: FileOperations, path: str) -> None:
        self._files = files
        self._path = path
        self._unusable: dict[str, WalFileError] = {}
        self._identity: WalIdentity | None = None
        self._identified_by = ""

    def run(self, names: list[str]) -> WalDirectory:
        """Return the directory that has these names."""
        by_ending: defaultdict[str, list[str]] = defaultdict(list)
        for name in names:
            by_ending[name[_BASE_LENGTH:]].append(name)
        segments = {form: _bases(by_ending[form]) for form in FORMS}
        histories: defaultdict[int, list[str]] = defaultdict(list)
        for name in by_ending[""]:  # those of histories are shorter than a segment's
            if len(name) < _BASE_LENGTH and (parsed := parse_file_name(name)).kind is FileKind.HISTORY:
                histories[parsed.timeline].append(name)
        self._identify(segments)
        if self._identity is None:
            return WalDirectory(self._path, unusable=self._unusable)
        held: defaultdict[int, set[int]] = defaultdict(set)
        other_forms: defaultdict[int, dict[int, str]] = defaultdict(dict)
        for form, bases in segments.items():
            for timeline, numbers in self._numbers(bases).items():
                if form:
                    other_forms[timeline].update(dict.fromkeys(numbers - held[timeline], form))
                held[timeline] |= numbers
        ranges = {timeline: runs_of(held[timeline]) for timeline in sorted(held)}
        for timeline, runs in ranges.items():
            for run in runs:
                self._check_ends(timeline, run, other_forms[timeline])
        history_files, contents, parsed_histories = self._read_histories(histories)
        # What is compressed while it grows has its complete form later.
        complete = [form for form in COMPLETE_FORMS if not form or segments[form] or segments[form + PARTIAL]]
        return WalDirectory(
            path=self._path,
            identity=self._identity,
            ranges=ranges,
            forms=(*complete, *(form + PARTIAL for form in complete)),
            histories=parsed_histories,
            unusable=self._unusable,
            _history_contents=contents,
            _history_files=history_files,
            _other_forms=other_forms,
        )

    def _identify(self, segments: Mapping[str, list[str]]) -> None:
        """Take the identity of the first file that has one: without it, no name has a number."""
        for form, bases in segments.items():
            for base in bases:
                if self._read(base + form) is not None:
                    return

    def _read(self, name: str) -> WalIdentity | None:
        """Return the identity that a file states, compared with the others', or ``None`` if it has none."""
        if name == self._identified_by:
            return self._identity
        if name in self._unusable:
            return None
        try:
            found = read_identity(self._files, f"{self._path}/{name}")
        except WalFileError as error:
            self._unusable[name] = error
            return None
        if self._identity is None:
            self._identity, self._identified_by = found, name
        elif found != self._identity:
            raise DataCorrupted(
                f'directory "{self._path}" holds WAL of two clusters: "{self._identified_by}" is from'
                f' {_describe(self._identity)}, "{name}" is from {_describe(found)}'
            )
        return found

    def _numbers(self, bases: list[str]) -> dict[int, set[int]]:
        """Return the segment numbers per timeline; names impossible in this geometry are left out."""
        assert self._identity is not None  # run() asks only then
        per_log_file = self._identity.geometry.segments_per_log_file
        numbers: defaultdict[int, set[int]] = defaultdict(set)
        for timeline, log_id, segment in _PARTS.iter_unpack(bytes.fromhex("".join(bases))):
            if segment < per_log_file:
                numbers[timeline].add(log_id * per_log_file + segment)
        return dict(numbers)

    def _check_ends(self, timeline: int, run: range, other_forms: Mapping[int, str]) -> None:
        """Compare the first and the last segment of a run that state an identity with the others."""
        assert self._identity is not None
        for numbers in (run, reversed(run)):
            for number in numbers:
                name = segment_name(timeline, number, self._identity.geometry)
                if self._read(name + other_forms.get(number, "")) is not None:
                    break

    def _read_histories(
        self, names: Mapping[int, list[str]]
    ) -> tuple[dict[int, str], dict[int, bytes], dict[int, TimelineHistory]]:
        """Return the complete history files: their names, raw and parsed."""
        assert self._identity is not None
        files: dict[int, str] = {}
        contents: dict[int, bytes] = {}
        parsed: dict[int, TimelineHistory] = {}
        for timeline in sorted(names):
            for name in sorted(names[timeline]):  # the plain one first
                try:
                    content = self._read_history(name)
                    parsed[timeline] = TimelineHistory.parse(timeline, content, self._identity.geometry)
                except WalFileError as error:
                    self._unusable[name] = error
                else:
                    files[timeline], contents[timeline] = name, content
                    break
        return files, contents, parsed

    def _read_history(self, name: str) -> bytes:
        """Return a history file's content."""
        try:
            content = read_file(self._files, f"{self._path}/{name}", MAX_HISTORY_SIZE + 1)
        except OSError as error:
            raise file_error(f'could not read file "pg_wal/{name}"', error) from error
        if len(content) > MAX_HISTORY_SIZE:
            raise DataCorrupted(f'invalid data in history file "pg_wal/{name}"', hint="The file is too long.")
        return content


def _bases(names: Iterable[str]) -> list[str]:
    """Return the part of *names* that names a segment, of those that do."""
    bases = [name[:_BASE_LENGTH] for name in names if len(name) >= _BASE_LENGTH]
    if _HEXADECIMAL.fullmatch("".join(bases)) is None:
        bases = [base for base in bases if SEGMENT_NAME.fullmatch(base)]
    return [base for base in bases if not base.startswith(_NO_TIMELINE)]


def _describe(identity: WalIdentity) -> str:
    """Return what tells one cluster's WAL from another's, for a message."""
    return (
        f"system identifier {identity.system_identifier} (PostgreSQL {identity.format.name},"
        f" segments of {identity.geometry.segment_size >> 20} MB)"
    )
