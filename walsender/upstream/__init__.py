"""The far side: one replication connection to the server that WAL is received from."""

from walsender.upstream.interfaces import (
    ICopyReceiver,
    IUpstreamConnector,
    IUpstreamSession,
    Row,
    UpstreamError,
)

__all__ = [
    "ICopyReceiver",
    "IUpstreamConnector",
    "IUpstreamSession",
    "Row",
    "UpstreamError",
]
