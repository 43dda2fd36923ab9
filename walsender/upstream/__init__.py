"""The far side: one replication connection to the server that WAL is received from."""

from walsender.upstream.group_commit import GroupCommit
from walsender.upstream.interfaces import (
    ICopyReceiver,
    IUpstreamConnector,
    IUpstreamSession,
    Row,
    UpstreamError,
)
from walsender.upstream.receiver import IWalKeeper, ReceiverSettings, WalReceiver
from walsender.upstream.room import Room
from walsender.upstream.segment_fetcher import UpstreamFetcher
from walsender.upstream.segment_writer import Commit, SegmentWriter
from walsender.upstream.status import NotReceiving, ReceiverStatus

__all__ = [
    "Commit",
    "GroupCommit",
    "ICopyReceiver",
    "IUpstreamConnector",
    "IUpstreamSession",
    "IWalKeeper",
    "NotReceiving",
    "ReceiverSettings",
    "ReceiverStatus",
    "Room",
    "Row",
    "SegmentWriter",
    "UpstreamError",
    "UpstreamFetcher",
    "WalReceiver",
]
