"""WAL at rest: segments, pages, records, histories, and where valid WAL ends."""

from .compressed import CannotDecompress, DecompressingFiles
from .directory import WalDirectory
from .end import CoveredFile, EndOfWal, SyncFailed, find_current_end, find_end, sync_covered, sync_file
from .files import (
    REAL_FILES,
    FileOperations,
    Identity,
    RealFiles,
    WritableFiles,
    prefetch,
    read_file,
    turn_read_ahead_off,
)
from .history import HistoryEntry, TimelineHistory
from .page import FORMATS, PageHeader, SwitchFill, WalFormat, identify_format, parse_page_header
from .record import RecordHeader, RecordParser, legacy_crc
from .scan import scan_directory
from .segment import (
    FileKind,
    WalFileName,
    WalIdentity,
    base_name,
    history_name,
    parse_file_name,
    parse_identity,
    read_identity,
    segment_name,
)
from .verify import VerifiedWal, verify_wal
from .whole import check_history, check_whole

__all__ = [
    "FORMATS",
    "REAL_FILES",
    "CannotDecompress",
    "CoveredFile",
    "DecompressingFiles",
    "EndOfWal",
    "FileKind",
    "FileOperations",
    "HistoryEntry",
    "Identity",
    "PageHeader",
    "RealFiles",
    "RecordHeader",
    "RecordParser",
    "SwitchFill",
    "SyncFailed",
    "TimelineHistory",
    "VerifiedWal",
    "WalDirectory",
    "WalFileName",
    "WalFormat",
    "WalIdentity",
    "WritableFiles",
    "base_name",
    "check_history",
    "check_whole",
    "find_current_end",
    "find_end",
    "history_name",
    "identify_format",
    "legacy_crc",
    "parse_file_name",
    "parse_identity",
    "parse_page_header",
    "prefetch",
    "read_file",
    "read_identity",
    "scan_directory",
    "segment_name",
    "sync_covered",
    "sync_file",
    "turn_read_ahead_off",
    "verify_wal",
]
