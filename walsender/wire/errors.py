"""
What can be wrong with a client's bytes, where the class alone tells the caller what to do.

Everything else that goes wrong in this room is one of the classes in
`walsender.errors`.
"""

from __future__ import annotations

from walsender.errors import FeatureNotSupported, ProtocolViolation, UnsupportedProtocol, WalsenderError


class SilentViolation(ProtocolViolation):
    """The connection is closed and the client is told nothing; the message is for the log."""


class InvalidPacketLength(SilentViolation):
    """A packet before authentication (or a cancel key) has an impossible length."""


class InvalidMessageLength(SilentViolation):
    """The length word of a typed message is impossible: the stream has no frames any more."""


class UnknownStandbyMessage(SilentViolation):
    """The first byte of a CopyData from a standby means nothing."""


class UnexpectedMessageType(ProtocolViolation):
    """
    The type byte of a message is not legal in this state.

    :ivar type_byte: the byte.
    """

    def __init__(self, message: str, type_byte: int) -> None:
        super().__init__(message)
        self.type_byte = type_byte


class ObsoleteProtocol(UnsupportedProtocol):
    """The client speaks protocol 1 or 2 and reads errors in their format only (`old_format_error`)."""


class InvalidStartupOptions(WalsenderError, sqlstate="42601", severity="FATAL"):
    """The ``options`` of a start-up packet are no command line."""


class NotACommand(FeatureNotSupported):
    """The text does not begin with a replication command: it is SQL, and there is none here."""


class NotACommandBefore14(WalsenderError):
    """`NotACommand` as servers before 14 put it, without a SQLSTATE of its own."""


class UnrecognizedOption(WalsenderError):
    """A replication slot has no option of that name (PostgreSQL gives no SQLSTATE)."""
