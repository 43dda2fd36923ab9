"""Where WAL comes from: the contract `IWalSource` and its forms."""

from walsender.source.directory import DirectorySource
from walsender.source.interfaces import IWalSource, IWalSubscriber, SegmentUnavailable, TimelineEnd
from walsender.source.relay import RelaySource
from walsender.source.segment_file import Cursor, OpenSegment, WalSlice

__all__ = [
    "Cursor",
    "DirectorySource",
    "IWalSource",
    "IWalSubscriber",
    "OpenSegment",
    "RelaySource",
    "SegmentUnavailable",
    "TimelineEnd",
    "WalSlice",
]
