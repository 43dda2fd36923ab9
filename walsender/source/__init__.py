"""Where WAL comes from: the contract `IWalSource` and its forms."""

from walsender.source.directory import DirectorySource
from walsender.source.fetching import AT_ONCE, Fetching, IWalProvider
from walsender.source.histories import HistorySearch
from walsender.source.interfaces import IWalSource, IWalSubscriber, SegmentUnavailable, TimelineEnd
from walsender.source.newest import NewestWal
from walsender.source.permits import Permit
from walsender.source.relay import RelaySource
from walsender.source.segment_file import Cursor, OpenSegment, WalSlice
from walsender.source.shelves import RelayShelf, TemporaryShelf

__all__ = [
    "AT_ONCE",
    "Cursor",
    "DirectorySource",
    "Fetching",
    "HistorySearch",
    "IWalProvider",
    "IWalSource",
    "IWalSubscriber",
    "NewestWal",
    "OpenSegment",
    "Permit",
    "RelayShelf",
    "RelaySource",
    "SegmentUnavailable",
    "TemporaryShelf",
    "TimelineEnd",
    "WalSlice",
]
