"""What every dialect answers: the contract, and what the eras have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final

from walsender.errors import ProtocolViolation, TooManyConnections
from walsender.wire.backend import (
    CommandComplete,
    DataRow,
    ErrorResponse,
    Field,
    ParameterStatus,
    RowDescription,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from walsender.errors import InsufficientPrivilege, WalFileError, WalsenderError
    from walsender.lsn import LSN, Geometry
    from walsender.wire.framing import MessageRules
    from walsender.wire.frontend import FrontendMessage
    from walsender.wire.replication import StandbyMessage
    from walsender.wire.startup import ReplicationMode
    from walsender.wire.statements import Command

MAX_SEND_SIZE: Final = 16 * 8192
"""Most WAL, in bytes, in one message of PostgreSQL's own walsender."""

TEXT_OID: Final = 25
INT4_OID: Final = 23

# Parameters that a server reports by ParameterStatus: the first version of a
# set, then the set (guc_tables.c, GUC_REPORT).
REPORTED_90: Final = (
    "application_name", "client_encoding", "DateStyle", "integer_datetimes", "IntervalStyle",
    "is_superuser", "server_encoding", "server_version", "session_authorization",
    "standard_conforming_strings", "TimeZone",
)  # fmt: skip
_REPORTED_SINCE: Final = (
    (140000, ("default_transaction_read_only", "in_hot_standby")),
    (160000, ("scram_iterations",)),
    (180000, ("search_path",)),
)


def result_set(fields: Sequence[Field], row: Sequence[bytes | None]) -> bytes:
    """Return the messages of a result of one row, without its CommandComplete."""
    return RowDescription(tuple(fields)).encode() + DataRow(tuple(row)).encode()


class Dialect(ABC):
    """
    What one server era puts on the wire.

    :ivar version: of the server whose WAL is sent, as 90600 or 180000.
    :cvar copy_both: the standby may talk while WAL streams, and reports how far it is.
    :cvar waits_for_wal: a stream may begin any way ahead of what may be sent, and then waits without limit.
    :cvar reports_lost_client: end of file between commands is an error, which is logged.
    :cvar tells_lost_client: and a FATAL error is sent after the client that may be gone.
    :cvar reserves_before_authentication: a walsender place is taken first; otherwise last.
    :cvar sends_key_data: BackendKeyData is part of the greeting.
    :ivar cancels: a CancelRequest ends what a walsender does; before 10 it ignored them.
    """

    copy_both: ClassVar[bool]
    waits_for_wal: ClassVar[bool] = True
    reports_lost_client: ClassVar[bool] = True
    tells_lost_client: ClassVar[bool] = False
    reserves_before_authentication: ClassVar[bool]
    sends_key_data: ClassVar[bool]

    def __init__(self, version: int) -> None:
        self.version = version
        self.cancels = False

    @property
    def reported_parameters(self) -> tuple[str, ...]:
        """Names of the parameters that the greeting reports."""
        later = (names for since, names in _REPORTED_SINCE if self.version >= since)
        return REPORTED_90 + tuple(name for names in later for name in names)

    def greeting(self, parameters: Mapping[str, str]) -> bytes:
        """Return the ParameterStatus messages for *parameters*, in the order of `reported_parameters`."""
        return b"".join(ParameterStatus(name, parameters[name]).encode() for name in self.reported_parameters)

    def parameters_changed(self, before: Mapping[str, str], after: Mapping[str, str]) -> bytes:
        """Return the ParameterStatus messages for what is reported and has changed."""
        changed = (name for name in self.reported_parameters if before[name] != after[name])
        return b"".join(ParameterStatus(name, after[name]).encode() for name in changed)

    @abstractmethod
    def parse_command(self, query: bytes) -> Command:
        """
        Return the command in a Query message's text.

        :raises WalsenderError: it is none, worded as that era words it.
        """

    @abstractmethod
    def identify_system(self, system_identifier: int, timeline: int, flush_lsn: LSN) -> bytes:
        """Return the whole answer to IDENTIFY_SYSTEM but for ReadyForQuery."""

    @abstractmethod
    def start_response(self) -> bytes:
        """Return the message that begins the stream."""

    def sends_from(self, start: int) -> bool:
        """Return whether a stream from *start* ever sends anything."""
        return True

    @abstractmethod
    def message_end(self, start: int, end: int, geometry: Geometry, read_size: int = MAX_SEND_SIZE) -> int:
        """
        Return the position up to which one message from *start* reaches; at most *end*.

        :param read_size: bytes that are read and handed over at a time; a message that is one
            read spares a turn, where the dialect leaves the choice.

        A record must never be cut but at a page boundary: a standby that
        reads half a header from the stream blames the stream.
        """

    @abstractmethod
    def wal_header(self, start: LSN, end: LSN, seconds: float, length: int) -> bytes:
        """
        Return what goes before *length* bytes of WAL: CopyData's own header and the XLogData header.

        :param end: how far WAL could be sent now.
        :param seconds: the time, since 1970.
        """

    @abstractmethod
    def keepalive(self, sent: LSN, seconds: float, *, reply_requested: bool) -> bytes:
        """Return a whole keepalive message; empty where there are none."""

    def decode_standby(self, data: bytes) -> StandbyMessage:
        """
        Return what a standby reports in a CopyData.

        :raises InvalidMessage: it is cut off.
        :raises UnknownStandbyMessage: it begins with no known tag.
        """
        raise AssertionError(f"{type(self).__name__} hears nothing while it streams, and reads no CopyData")

    @abstractmethod
    def open_error(
        self, name: str, geometry: Geometry, segment_number: int, error: OSError, earliest: LSN
    ) -> WalFileError:
        """
        Return the error for a segment file that cannot be opened.

        :param name: of the segment file.
        :param earliest: the lowest position that could be sent instead; 0 if none.
        """

    @abstractmethod
    def read_error(
        self, name: str, geometry: Geometry, position: int, length: int, wanted: int, error: OSError | None
    ) -> WalFileError:
        """
        Return the error for WAL that could not be read.

        :param name: of the segment file.
        :param position: of the first byte of the read.
        :param length: how many bytes could be read.
        :param error: ``None`` if the file ended there.
        """

    @abstractmethod
    def replication_mode(self, value: str) -> ReplicationMode:
        """
        Return what the start-up parameter ``replication=value`` asks for.

        :raises InvalidStartupParameter: nothing that there is.
        """

    @abstractmethod
    def may_not_replicate(self) -> InsufficientPrivilege:
        """Return the error for a user who may come in but not replicate."""

    @abstractmethod
    def message_rules(self, *, streaming: bool) -> MessageRules:
        """Return which messages are read, during a stream and outside."""

    def closes_at(self, type_byte: int | None, *, streaming: bool) -> bool:
        """Return whether this first byte of a message alone ends the connection quietly."""
        return False

    def unexpected_message(self, message: FrontendMessage) -> WalsenderError:
        """Return the error for a message that is well framed and not legal now."""
        return ProtocolViolation(f"invalid frontend message type {message.type_byte}")

    def error(self, error: WalsenderError, *, fatal: bool = False) -> bytes:
        """
        Return *error* as a message.

        :param fatal: it ends the connection, whatever its own severity is.
        """
        severity = "FATAL" if fatal else self.severity(error)
        return ErrorResponse.from_error(error, severity=severity).encode(
            unlocalized_severity=self.version >= 90600 and self.copy_both
        )

    def severity(self, error: WalsenderError) -> str:
        """Return what severity *error* has here; ``FATAL`` ends the connection."""
        return error.severity

    def too_many_connections(self, error: TooManyConnections) -> TooManyConnections:
        """Return *error* as this era words it: settings are quoted since 17."""
        return error if self.version >= 170000 else TooManyConnections(error.message.replace('"', ""))

    @property
    def farewell(self) -> bytes:
        """What ends a stream when the server stops: no CopyDone, no ReadyForQuery."""
        return CommandComplete("COPY 0").encode()
