"""
Typed failures, each with its SQLSTATE and severity.

Whose fault a failure is stands in its class: what a client did wrong, what the
surroundings lack, or (the base class, XX000) a mistake of our own.  Only
``walsender.sender.protocol`` turns one of these into an ErrorResponse.
"""

from __future__ import annotations

import errno
import re
from typing import ClassVar


class WalsenderError(Exception):
    """
    Base of all failures that a user may see.

    :ivar message: one line, worded as PostgreSQL words it where it has a text.
    :ivar detail: further facts, or ``None``.
    :ivar hint: what to do about it, or ``None``.
    :ivar log_detail: what the log says beside, and the client must not know; or ``None``.
    :ivar position: of the character in a statement that is to blame, counted from 1; 0: none.
    """

    # Of the class; but what another server said keeps that server's code.
    sqlstate: str = "XX000"
    severity: ClassVar[str] = "ERROR"
    position: int = 0

    def __init_subclass__(cls, *, sqlstate: str | None = None, severity: str | None = None) -> None:
        super().__init_subclass__()
        if sqlstate is not None:
            if not re.fullmatch("[0-9A-Z]{5}", sqlstate):
                raise TypeError(f"{cls.__name__}: {sqlstate!r} is no SQLSTATE")
            cls.sqlstate = sqlstate
        if severity is not None:
            if severity not in {"ERROR", "FATAL", "PANIC"}:
                raise TypeError(f"{cls.__name__}: {severity!r} is no severity of an error")
            cls.severity = severity

    def __init__(
        self,
        message: str,
        *,
        detail: str | None = None,
        hint: str | None = None,
        log_detail: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.hint = hint
        self.log_detail = log_detail

    @property
    def more(self) -> str:
        """Detail and hint behind a blank and in parentheses, for where they have no lines of their own."""
        texts = " ".join(text for text in (self.detail, self.hint) if text)
        return f" ({texts})" if texts else ""


# What the client did wrong.


class ProtocolViolation(WalsenderError, sqlstate="08P01", severity="FATAL"):
    """The byte stream does not follow the protocol; the connection ends."""


class InvalidMessage(WalsenderError, sqlstate="08P01"):
    """A well-framed message has an impossible body; the connection survives."""


class UnsupportedProtocol(WalsenderError, sqlstate="0A000", severity="FATAL"):
    """A start-up packet asks for a protocol version that nobody here speaks."""


class FeatureNotSupported(WalsenderError, sqlstate="0A000"):
    """The command exists, but not in a walsender, or not in this one."""


class CommandSyntaxError(WalsenderError, sqlstate="42601"):
    """A replication command cannot be parsed."""


class InvalidParameterValue(WalsenderError, sqlstate="22023"):
    """A parameter has a value outside its range."""


class InvalidStartupParameter(WalsenderError, sqlstate="22023", severity="FATAL"):
    """A start-up packet carries a parameter with an impossible value."""


class UndefinedObject(WalsenderError, sqlstate="42704"):
    """There is no object, such as a replication slot, of that name."""


class DuplicateObject(WalsenderError, sqlstate="42710"):
    """There is an object, such as a replication slot, of that name already."""


class ObjectInUse(WalsenderError, sqlstate="55006"):
    """The object, such as a replication slot, belongs to another session now."""


class ConfigurationLimitExceeded(WalsenderError, sqlstate="53400"):
    """A setting bounds how many such objects there may be."""


class InvalidName(WalsenderError, sqlstate="42602"):
    """No object can have that name."""


class NameTooLong(InvalidName, sqlstate="42622"):
    """A name has more bytes than any object's."""


class ReservedName(InvalidName, sqlstate="42939"):
    """The server keeps that name for itself."""


class UnrecognizedParameter(WalsenderError, sqlstate="42704"):
    """A configuration parameter of that name does not exist."""


class CannotChangeParameter(WalsenderError, sqlstate="55P02"):
    """A configuration parameter exists, and a client may not set it."""


class InvalidAuthorization(WalsenderError, sqlstate="28000", severity="FATAL"):
    """The client may not come in."""


class InsufficientPrivilege(WalsenderError, sqlstate="42501", severity="FATAL"):
    """The client may come in, but may not replicate."""


class InvalidLSN(WalsenderError, sqlstate="22P02"):
    """A text is no log sequence number."""


class StartPositionRefused(WalsenderError):
    """START_REPLICATION names a timeline or a position that is not here (PostgreSQL gives no SQLSTATE)."""


# What the surroundings lack.


class TooManyConnections(WalsenderError, sqlstate="53300", severity="FATAL"):
    """Every walsender place is taken."""


class OutOfResources(WalsenderError, sqlstate="53000"):
    """The system has no more of something: descriptors, memory."""


class QueryCanceled(WalsenderError, sqlstate="57014"):
    """The client has asked, on another connection, that what is done for it be ended."""


class AdminShutdown(WalsenderError, sqlstate="57P01", severity="FATAL"):
    """The server is being stopped."""


class CannotConnectNow(WalsenderError, sqlstate="57P03", severity="FATAL"):
    """The server has no WAL yet, or is being stopped."""


class WrongState(WalsenderError, sqlstate="55000"):
    """The command exists, but not now."""


class WalFileError(WalsenderError, sqlstate="58030"):
    """A WAL file cannot be opened, read or synced."""


class WalFileMissing(WalFileError, sqlstate="58P01"):
    """A WAL or history file is not (or no longer) there."""


class WalFileDenied(WalFileError, sqlstate="42501"):
    """A WAL or history file may not be read by this process."""


class DiskFull(WalFileError, sqlstate="53100"):
    """There is no room for a file, or no more than its owner may have."""


class DataCorrupted(WalFileError, sqlstate="XX001"):
    """A file holds something other than what its name promises."""


class TooManyOpenFiles(WalFileError, sqlstate="53000"):
    """The process or the system may open no more files: this one stays closed, others go on."""


class ConfigurationError(WalsenderError, sqlstate="F0000", severity="FATAL"):
    """A setting, a file it names or the command line makes a start impossible."""


_BY_ERRNO: dict[int, type[WalFileError]] = {
    errno.ENOENT: WalFileMissing,
    errno.EACCES: WalFileDenied,
    errno.EPERM: WalFileDenied,
    errno.ENOSPC: DiskFull,
    errno.EDQUOT: DiskFull,
    errno.EMFILE: TooManyOpenFiles,
    errno.ENFILE: TooManyOpenFiles,
}


def file_error(action: str, error: OSError) -> WalFileError:
    """
    Return the typed error for a failed file operation.

    :param action: what could not be done, with the name that a client may see,
        for example ``could not open file "pg_wal/00000002.history"``.

    Source: PostgreSQL, src/backend/utils/error/elog.c, errcode_for_file_access.
    """
    reason = error.strerror or str(error)
    return _BY_ERRNO.get(error.errno or 0, WalFileError)(f"{action}: {reason}")
