"""
Recognising a status update that says what the last one said, without taking it apart.

Thousands of idle standbys send the same bytes again and again, but for the time in them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from walsender.wire.frontend import CopyData
from walsender.wire.replication import NetworkLayout

if TYPE_CHECKING:
    from walsender.wire.replication import StandbyStatusUpdate

_LAYOUT: Final = NetworkLayout()
_TIME_AND_FLAG: Final = struct.Struct("!qB")  # what a status update ends with


def status_start(status: StandbyStatusUpdate) -> bytes:
    """Return what a CopyData with *status* begins with, up to its time; of 9.3 and later."""
    return CopyData(_LAYOUT.encode(status)).encode()[: -_TIME_AND_FLAG.size]


def repeated_at_us(start: bytes, data: bytes) -> int | None:
    """
    Return the time of the status update that *data* is.

    :param start: as `status_start` gives it.
    :returns: microseconds since 2000-01-01 UTC; ``None`` if *data* is not one such message with this start,
        or it asks for a reply.
    """
    if not data.startswith(start) or len(data) != len(start) + _TIME_AND_FLAG.size:
        return None
    sent_at_us: int
    sent_at_us, reply_requested = _TIME_AND_FLAG.unpack_from(data, len(start))
    return None if reply_requested else sent_at_us
