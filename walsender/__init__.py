"""
walsender: PostgreSQL's WAL sender as a service of its own, for twistd.

The names in ``__all__``, and those of `walsender.testing`, are for other programs
to build on.  What is below them may change at any time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from walsender.lazily import attribute_of

if TYPE_CHECKING:
    from walsender.auth import (
        Authenticated,
        ConnectionRequest,
        IAuthenticationClient,
        IAuthorizer,
        LocalAuthorizer,
        TlsInfo,
    )
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
    from walsender.wire import PASSWORD_MESSAGES, AuthenticationRequest, MessageRules

__all__ = [
    "LSN",
    "PASSWORD_MESSAGES",
    "Authenticated",
    "AuthenticationRequest",
    "ConfigurationError",
    "ConnectionRequest",
    "Geometry",
    "IAuthenticationClient",
    "IAuthorizer",
    "IWalSource",
    "IWalSubscriber",
    "InvalidAuthorization",
    "LocalAuthorizer",
    "MessageRules",
    "OpenSegment",
    "SegmentUnavailable",
    "Settings",
    "StartPositionRefused",
    "TimelineEnd",
    "TlsInfo",
    "WalFileMissing",
    "WalSenderFactory",
    "WalSenderService",
    "WalsenderError",
]

# Importing any room runs this file first; who needs `walsender.lsn` must not get Twisted with it.
_HOMES: Final = {
    "auth": (
        "Authenticated",
        "ConnectionRequest",
        "IAuthenticationClient",
        "IAuthorizer",
        "LocalAuthorizer",
        "TlsInfo",
    ),
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
    "wire": ("PASSWORD_MESSAGES", "AuthenticationRequest", "MessageRules"),
}


def __getattr__(name: str) -> object:
    return attribute_of(__name__, _HOMES, name)
