"""
walsender: PostgreSQL's WAL sender as a service of its own, for twistd.

The names in ``__all__``, and those of `walsender.testing`, are for other programs
to build on.  What is below them may change at any time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from walsender.lazily import attribute_of

if TYPE_CHECKING:
    from walsender.auth import ConnectionRequest, IAuthenticationClient, IAuthorizer, LocalAuthorizer
    from walsender.errors import (
        ConfigurationError,
        InvalidAuthorization,
        StartPositionRefused,
        WalFileMissing,
        WalsenderError,
    )
    from walsender.lsn import LSN, Geometry
    from walsender.sender import WalSenderFactory
    from walsender.service import WalSenderService
    from walsender.settings import Settings
    from walsender.source import IWalSource, IWalSubscriber, OpenSegment, SegmentUnavailable, TimelineEnd

__all__ = [
    "LSN",
    "ConfigurationError",
    "ConnectionRequest",
    "Geometry",
    "IAuthenticationClient",
    "IAuthorizer",
    "IWalSource",
    "IWalSubscriber",
    "InvalidAuthorization",
    "LocalAuthorizer",
    "OpenSegment",
    "SegmentUnavailable",
    "Settings",
    "StartPositionRefused",
    "TimelineEnd",
    "WalFileMissing",
    "WalSenderFactory",
    "WalSenderService",
    "WalsenderError",
]

# Importing any room runs this file first; who needs `walsender.lsn` must not get Twisted with it.
_HOMES: Final = {
    "auth": ("ConnectionRequest", "IAuthenticationClient", "IAuthorizer", "LocalAuthorizer"),
    "errors": (
        "ConfigurationError",
        "InvalidAuthorization",
        "StartPositionRefused",
        "WalFileMissing",
        "WalsenderError",
    ),
    "lsn": ("LSN", "Geometry"),
    "sender": ("WalSenderFactory",),
    "service": ("WalSenderService",),
    "settings": ("Settings",),
    "source": ("IWalSource", "IWalSubscriber", "OpenSegment", "SegmentUnavailable", "TimelineEnd"),
}


def __getattr__(name: str) -> object:
    return attribute_of(__name__, _HOMES, name)
