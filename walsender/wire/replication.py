"""
The messages inside CopyData while WAL streams, in the layouts of both eras.

`NetworkLayout` is PostgreSQL 9.3 and later: every field in network order.
`RawLayout` is 9.0 to 9.2 and the development tree before them: C structures as
they stood in memory, positions as two 32-bit halves, in the byte order of the
server, which is that of its WAL.  Both give and take the same classes, and the
bytes of a CopyData's *body*; positions are LSNs, times are microseconds since
2000-01-01 UTC.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal, TypeAlias

from walsender.errors import InvalidMessage
from walsender.lsn import INVALID_LSN, LSN
from walsender.wire.body import BodyReader, decode_text
from walsender.wire.errors import UnknownStandbyMessage

_POSTGRES_EPOCH_S: Final = 946_684_800
_US_PER_S: Final = 1_000_000


def to_pg_timestamp(unix_seconds: float) -> int:
    """Return the time *unix_seconds* after 1970 as microseconds since 2000-01-01 UTC."""
    return round((unix_seconds - _POSTGRES_EPOCH_S) * _US_PER_S)


def from_pg_timestamp(microseconds: int) -> float:
    """Return what `to_pg_timestamp` was given."""
    return microseconds / _US_PER_S + _POSTGRES_EPOCH_S


@dataclass(frozen=True, slots=True)
class XLogData:
    """
    ``w``: WAL.

    :ivar start: of the data.
    :ivar wal_end: how far the server could send now; 0 in layouts without it.
    :ivar sent_at_us: the server's clock; 0 in layouts without it.
    """

    tag: ClassVar[int] = ord("w")
    start: LSN
    wal_end: LSN
    sent_at_us: int
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class PrimaryKeepalive:
    """
    ``k``: the server is there.

    :ivar wal_end: up to where WAL has been sent.
    :ivar reply_requested: the standby should answer at once; always false before 9.3.
    """

    tag: ClassVar[int] = ord("k")
    wal_end: LSN
    sent_at_us: int
    reply_requested: bool = False


@dataclass(frozen=True, slots=True)
class StandbyStatusUpdate:
    """
    ``r``: how far the standby is; 0 means "I do not say".

    :ivar reply_requested: the server should answer at once; always false before 9.3.
    """

    tag: ClassVar[int] = ord("r")
    write_lsn: LSN
    flush_lsn: LSN
    replay_lsn: LSN
    sent_at_us: int
    reply_requested: bool = False


@dataclass(frozen=True, slots=True)
class HotStandbyFeedback:
    """
    ``h``: the oldest transactions that the standby's queries need; all 0 means none.

    :ivar catalog_xmin: the same for catalogs only; 0 in layouts without it.
    """

    tag: ClassVar[int] = ord("h")
    sent_at_us: int
    xmin: int
    epoch: int
    catalog_xmin: int = 0
    catalog_epoch: int = 0


StandbyMessage: TypeAlias = StandbyStatusUpdate | HotStandbyFeedback
WalsenderMessage: TypeAlias = XLogData | PrimaryKeepalive

_XLOG_DATA: Final = struct.Struct("!BQQq")
_XLOG_START: Final = struct.Struct("!BQ")
_KEEPALIVE: Final = struct.Struct("!BQqB")
_STATUS: Final = struct.Struct("!BQQQqB")
_FEEDBACK: Final = struct.Struct("!BqII")
_FEEDBACK_CATALOG: Final = struct.Struct("!BqIIII")


def _unknown(tag: int) -> UnknownStandbyMessage:
    return UnknownStandbyMessage(f'unexpected message type "{decode_text(bytes((tag,)))}"')


def _check_tag(body: bytes | memoryview) -> int:
    return body[0] if body else BodyReader(b"").byte()  # which has the error for a body of no bytes


def _check_size(body: bytes | memoryview, layout: struct.Struct) -> None:
    if len(body) < layout.size:
        raise InvalidMessage("insufficient data left in message")


@dataclass(frozen=True, slots=True)
class NetworkLayout:
    """
    PostgreSQL 9.3 and later.

    * ``w`` Int64 start, Int64 end, Int64 time, WAL
    * ``k`` Int64 end, Int64 time, Byte1 reply requested
    * ``r`` Int64 write, Int64 flush, Int64 replay, Int64 time, Byte1 reply requested
    * ``h`` Int64 time, Int32 xmin, Int32 epoch, then, from 10 on, Int32 catalog xmin, Int32 epoch

    What follows the last field is ignored, as PostgreSQL does.

    :ivar catalog_xmin: feedback has its last two fields (10 and later).

    Source: PostgreSQL, src/backend/replication/walsender.c, ProcessStandbyMessage.
    """

    catalog_xmin: bool = True

    def data_header(self, start: int, wal_end: int, sent_at_us: int) -> bytes:
        """Return what precedes the WAL in an `XLogData`, its tag included."""
        return _XLOG_DATA.pack(XLogData.tag, start, wal_end, sent_at_us)

    def encode(self, message: StandbyMessage | WalsenderMessage) -> bytes:
        """Return the body of the CopyData that carries *message*."""
        match message:
            case XLogData(start, wal_end, sent_at_us, data):
                return self.data_header(start, wal_end, sent_at_us) + bytes(data)
            case PrimaryKeepalive(wal_end, sent_at_us, reply_requested):
                return _KEEPALIVE.pack(message.tag, wal_end, sent_at_us, reply_requested)
            case StandbyStatusUpdate(write, flush, replay, sent_at_us, reply_requested):
                return _STATUS.pack(message.tag, write, flush, replay, sent_at_us, reply_requested)
            case HotStandbyFeedback(sent_at_us, xmin, epoch, catalog_xmin, catalog_epoch):
                if not self.catalog_xmin:
                    return _FEEDBACK.pack(message.tag, sent_at_us, xmin, epoch)
                return _FEEDBACK_CATALOG.pack(
                    message.tag, sent_at_us, xmin, epoch, catalog_xmin, catalog_epoch
                )

    def decode_standby(self, body: bytes) -> StandbyMessage:
        """
        Return what a standby says.

        :raises InvalidMessage: it is cut off (ERROR 08P01, which ends COPY, not the session).
        :raises UnknownStandbyMessage: its tag means nothing; close, answer nothing.
        """
        tag = _check_tag(body)
        if tag == StandbyStatusUpdate.tag:
            if len(body) == _STATUS.size - 1:  # the flag alone is read as a byte, with a byte's error
                raise InvalidMessage("no data left in message")
            _check_size(body, _STATUS)
            _, write, flush, replay, sent_at_us, reply_requested = _STATUS.unpack_from(body)
            return StandbyStatusUpdate(LSN(write), LSN(flush), LSN(replay), sent_at_us, bool(reply_requested))
        if tag == HotStandbyFeedback.tag:
            layout = _FEEDBACK_CATALOG if self.catalog_xmin else _FEEDBACK
            _check_size(body, layout)
            return HotStandbyFeedback(*layout.unpack_from(body)[1:])
        raise _unknown(tag)

    def decode_walsender(self, body: bytes | memoryview) -> WalsenderMessage:
        """
        Return what a server says; the WAL of an `XLogData` is a slice of *body*.

        :raises InvalidMessage: it is cut off.
        :raises UnknownStandbyMessage: its tag means nothing.
        """
        tag = _check_tag(body)
        if tag == XLogData.tag:
            _check_size(body, _XLOG_DATA)
            _, start, wal_end, sent_at_us = _XLOG_DATA.unpack_from(body)
            return XLogData(LSN(start), LSN(wal_end), sent_at_us, body[_XLOG_DATA.size :])
        if tag == PrimaryKeepalive.tag:
            _check_size(body, _KEEPALIVE)
            _, wal_end, sent_at_us, reply_requested = _KEEPALIVE.unpack_from(body)
            return PrimaryKeepalive(LSN(wal_end), sent_at_us, bool(reply_requested))
        raise _unknown(tag)

    def wal_in(self, body: bytes | memoryview) -> tuple[int, memoryview] | None:
        """
        Return the LSN at which the WAL of an `XLogData` starts, and the WAL; ``None`` of anything else.

        As `decode_walsender`, for whoever has no time to know more.
        """
        if len(body) < _XLOG_DATA.size:
            return None
        tag, start = _XLOG_START.unpack_from(body)
        return (start, memoryview(body)[_XLOG_DATA.size :]) if tag == XLogData.tag else None


def _halves(*positions: int) -> tuple[int, ...]:
    return tuple(half for position in positions for half in (position >> 32, position & 0xFFFFFFFF))


def _joined(log_id: int, offset: int) -> LSN:
    return LSN(log_id << 32 | offset)


@dataclass(frozen=True, slots=True)
class RawLayout:
    """
    PostgreSQL 9.0 to 9.2, and the development tree before 9.0.

    A position is its log id and its offset, 32 bits each; no padding anywhere.

    * ``w`` start, end, int64 time, WAL; in the first walsender start, WAL
    * ``k`` end, int64 time (9.2)
    * ``r`` write, flush, replay, int64 time (9.1, 9.2)
    * ``h`` uint32 xmin, uint32 epoch, int64 time (9.1, 9.2)

    :ivar byte_order: of the server's memory, and so of its WAL's pages.
    :ivar start_only: the header of ``w`` is the start position alone (before June 2010).

    Source: PostgreSQL 9.0 to 9.2, src/include/replication/walprotocol.h.
    """

    byte_order: Literal["little", "big"]
    start_only: bool = False
    _data: struct.Struct = field(init=False, repr=False, compare=False)
    _keepalive: struct.Struct = field(init=False, repr=False, compare=False)
    _status: struct.Struct = field(init=False, repr=False, compare=False)
    _feedback: struct.Struct = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        mark = "<" if self.byte_order == "little" else ">"
        data = "BII" if self.start_only else "BIIIIq"
        for name, layout in (
            ("_data", data),
            ("_keepalive", "BIIq"),
            ("_status", "BIIIIIIq"),
            ("_feedback", "BIIq"),
        ):
            object.__setattr__(self, name, struct.Struct(mark + layout))

    def data_header(self, start: int, wal_end: int, sent_at_us: int) -> bytes:
        """Return what precedes the WAL in an `XLogData`, its tag included."""
        if self.start_only:
            return self._data.pack(XLogData.tag, *_halves(start))
        return self._data.pack(XLogData.tag, *_halves(start, wal_end), sent_at_us)

    def encode(self, message: StandbyMessage | WalsenderMessage) -> bytes:
        """Return the body of the CopyData that carries *message*."""
        match message:
            case XLogData(start, wal_end, sent_at_us, data):
                return self.data_header(start, wal_end, sent_at_us) + bytes(data)
            case PrimaryKeepalive(wal_end, sent_at_us):
                return self._keepalive.pack(message.tag, *_halves(wal_end), sent_at_us)
            case StandbyStatusUpdate(write, flush, replay, sent_at_us):
                return self._status.pack(message.tag, *_halves(write, flush, replay), sent_at_us)
            case HotStandbyFeedback(sent_at_us, xmin, epoch):
                return self._feedback.pack(message.tag, xmin, epoch, sent_at_us)

    def decode_standby(self, body: bytes) -> StandbyMessage:
        """Return what a standby says; raises as `NetworkLayout.decode_standby`."""
        tag = _check_tag(body)
        if tag == StandbyStatusUpdate.tag:
            _check_size(body, self._status)
            _, *halves, sent_at_us = self._status.unpack_from(body)
            return StandbyStatusUpdate(
                _joined(*halves[0:2]), _joined(*halves[2:4]), _joined(*halves[4:6]), sent_at_us
            )
        if tag == HotStandbyFeedback.tag:
            _check_size(body, self._feedback)
            _, xmin, epoch, sent_at_us = self._feedback.unpack_from(body)
            return HotStandbyFeedback(sent_at_us, xmin, epoch)
        raise _unknown(tag)

    def decode_walsender(self, body: bytes | memoryview) -> WalsenderMessage:
        """Return what a server says; raises as `NetworkLayout.decode_walsender`."""
        tag = _check_tag(body)
        if tag == XLogData.tag:
            _check_size(body, self._data)
            _, *fields = self._data.unpack_from(body)
            start, data = _joined(*fields[0:2]), body[self._data.size :]
            if self.start_only:
                return XLogData(start, INVALID_LSN, 0, data)
            return XLogData(start, _joined(*fields[2:4]), fields[4], data)
        if tag == PrimaryKeepalive.tag:
            _check_size(body, self._keepalive)
            _, log_id, offset, sent_at_us = self._keepalive.unpack_from(body)
            return PrimaryKeepalive(_joined(log_id, offset), sent_at_us)
        raise _unknown(tag)


MessageLayout: TypeAlias = NetworkLayout | RawLayout
