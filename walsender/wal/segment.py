"""Names of the files in a WAL directory, and what a segment says about its cluster."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from walsender.errors import DataCorrupted, file_error

from .files import read_file
from .page import WalFormat, header_read_size, identify_format, parse_long_header, parse_page_header

if TYPE_CHECKING:
    from walsender.lsn import Geometry

    from .files import FileOperations

PARTIAL: Final = ".partial"
HISTORY: Final = ".history"

_BASE_LENGTH: Final = 24
_LONGEST_FIRST_READ: Final = 64  # no header of any era is longer


class FileKind(enum.Enum):
    """What a name in a WAL directory promises."""

    SEGMENT = enum.auto()
    PARTIAL = enum.auto()
    COMPRESSED = enum.auto()
    COMPRESSED_PARTIAL = enum.auto()
    HISTORY = enum.auto()
    BACKUP = enum.auto()
    OTHER = enum.auto()


SEGMENT_NAME: Final = re.compile("([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})")
HISTORY_NAME: Final = re.compile(r"([0-9A-F]{8})\.history")
_COMPRESSED: Final = r"(?:\.(gz|lz4|zst))?"
_NAME: Final = re.compile(SEGMENT_NAME.pattern + r"(\.[0-9A-F]{8}\.backup)?" + _COMPRESSED + r"(\.partial)?")
_HISTORY_NAME: Final = re.compile(HISTORY_NAME.pattern + _COMPRESSED)
_SUFFIX: Final = re.compile(rf".*?{_COMPRESSED}(?:\{PARTIAL})?", re.DOTALL)

COMPLETE_FORMS: Final = ("", ".gz", ".lz4", ".zst")
"""What may follow a segment's name when that is whole; the first is preferred to the second, and so on."""

FORMS: Final = (*COMPLETE_FORMS, *(form + PARTIAL for form in COMPLETE_FORMS))
"""What may follow a segment's name, best first."""


@dataclass(frozen=True, slots=True)
class WalFileName:
    """
    A name, taken apart.

    :ivar timeline: 0 for files of no timeline.
    :ivar log_id: the middle part of a segment's name.
    :ivar segment: its last part: the segment's place within the log file.
    :ivar compression: ``gz``, ``lz4``, ``zst`` or ``None``.
    """

    kind: FileKind
    timeline: int = 0
    log_id: int = 0
    segment: int = 0
    compression: str | None = None

    @property
    def form(self) -> str:
        """What follows the segment's name, one of `FORMS`."""
        compressed = "" if self.compression is None else f".{self.compression}"
        partial = self.kind in {FileKind.PARTIAL, FileKind.COMPRESSED_PARTIAL}
        return compressed + PARTIAL if partial else compressed

    def number(self, geometry: Geometry) -> int:
        """Return the segment's number, counted over all of WAL."""
        return self.log_id * geometry.segments_per_log_file + self.segment


_OTHER: Final = WalFileName(FileKind.OTHER)


def segment_name(timeline: int, number: int, geometry: Geometry) -> str:
    """
    Return the name of a segment, 24 hexadecimal digits.

    Source: PostgreSQL, src/include/access/xlog_internal.h, XLogFileName.
    """
    log_id, segment = divmod(number, geometry.segments_per_log_file)
    return f"{timeline:08X}{log_id:08X}{segment:08X}"


def history_name(timeline: int) -> str:
    """Return the name of a timeline's history file."""
    return f"{timeline:08X}{HISTORY}"


def parse_file_name(name: str, geometry: Geometry | None = None) -> WalFileName:
    """
    Return what *name* is; every string has an answer.

    :param geometry: if given, a segment beyond the end of its log file is `FileKind.OTHER`
        (``…FF`` before 9.3, ``…100`` at 16 MB segments).
    """
    match = _NAME.fullmatch(name)
    if match is None:
        match = _HISTORY_NAME.fullmatch(name)
        if match is None or not (timeline := int(match[1], 16)):
            return _OTHER
        return WalFileName(FileKind.HISTORY, timeline, compression=match[2])
    timeline, log_id, segment = int(match[1], 16), int(match[2], 16), int(match[3], 16)
    if not timeline or (geometry is not None and segment >= geometry.segments_per_log_file):
        return _OTHER
    compression = match[5]
    if match[4]:
        kind = FileKind.OTHER if compression or match[6] else FileKind.BACKUP
    elif compression:
        kind = FileKind.COMPRESSED_PARTIAL if match[6] else FileKind.COMPRESSED
    else:
        kind = FileKind.PARTIAL if match[6] else FileKind.SEGMENT
    return WalFileName(kind, timeline, log_id, segment, compression)


def compression_of(name: str) -> str | None:
    """Return how a file of that name is compressed: ``gz``, ``lz4``, ``zst`` or ``None``."""
    match = _SUFFIX.fullmatch(name)
    return match and match[1]


def base_name(name: str) -> str:
    """Return a segment's name without what tells the form in which a file has it."""
    return name[:_BASE_LENGTH]


@dataclass(frozen=True, slots=True)
class WalIdentity:
    """Whose WAL a segment is: the cluster, and how it writes."""

    system_identifier: int
    format: WalFormat
    geometry: Geometry


def read_identity(files: FileOperations, path: str) -> WalIdentity:
    """
    Return what the long header of the segment at *path* says.

    Where the page belongs is not looked at: a recycled segment's answer is right too.

    :raises DataCorrupted: the file is no WAL segment, or shorter than a header.
    :raises WalFileError: the file cannot be opened or read.
    """
    name = path.rpartition("/")[2]
    try:
        data = read_file(files, path, _LONGEST_FIRST_READ)
    except OSError as error:
        raise file_error(f'could not read file "pg_wal/{name}"', error) from error
    return parse_identity(name, data)


def parse_identity(name: str, data: bytes) -> WalIdentity:
    """
    Return what the long header says with which a segment begins.

    :param name: of the segment, for messages.
    :param data: its first bytes, 64 at least.
    :raises DataCorrupted: it is no WAL segment.
    """
    try:
        wal_format = identify_format(data)
        long = parse_long_header(data, wal_format)
        geometry = wal_format.geometry(long.segment_size, long.page_size)
        parse_page_header(data[: header_read_size(wal_format)], wal_format, geometry)
    except (DataCorrupted, ValueError) as error:
        raise DataCorrupted(f'file "pg_wal/{name}" is no WAL segment: {error}') from error
    return WalIdentity(long.system_identifier, wal_format, geometry)
