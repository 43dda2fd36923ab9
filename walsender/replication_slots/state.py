"""
What is kept of one permanent slot, and its bytes on disk.

The format is text of a few lines, so that an administrator can read it with ``cat``
and a later version can add lines; it is written once in some seconds, and its size
does not matter:

    walsender replication slot 1
    name: standby_1
    restart_lsn: 0/3000000
    crc32c: 1A2B3C4D

A slot that has lost its WAL has ``restart_lsn: 0/0`` and one more line, ``invalidation_reason:
wal_removed``.  The checksum is CRC-32C of everything before its own line.  There is one spelling of
each state, and any other is damage.  The name stands inside so that a
file that was copied under another name is noticed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import google_crc32c

from walsender.errors import DataCorrupted, InvalidName, NameTooLong, ReservedName
from walsender.lsn import INVALID_LSN, LSN

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_NAME_LENGTH: Final = 63
"""Most bytes of a slot's name: PostgreSQL's NAMEDATALEN less one."""

MAX_STATE_SIZE: Final = 4096
"""Most bytes that are read of a file; a state has fewer than 200."""

WAL_REMOVED: Final = "wal_removed"
"""Why a slot is invalidated, as ``pg_replication_slots.invalidation_reason`` says it: it has lost its WAL."""

_FORMAT: Final = 1
_NAME: Final = re.compile("[a-z0-9_]+")
_FIRST_LINE: Final = re.compile(rb"walsender replication slot ([0-9]{1,9})\n")
_CHECKSUM: Final = re.compile(rb"(.*\n)crc32c: ([0-9A-F]{8})\n", re.DOTALL)
_BODY: Final = re.compile(
    r"walsender replication slot [0-9]+\n"
    r"name: ([a-z0-9_]{1,63})\n"
    r"restart_lsn: ([0-9A-F]{1,8}/[0-9A-F]{1,8})\n"
    rf"(?:invalidation_reason: ({WAL_REMOVED})\n)?"
)


@dataclass(frozen=True, slots=True)
class SlotState:
    """
    What must survive of a permanent physical slot.

    :ivar restart_lsn: WAL from here on is needed; 0 if none has been reserved yet, or no longer is.
    :ivar invalidation_reason: `WAL_REMOVED`, or empty: the slot is good.
    """

    name: str
    restart_lsn: LSN = INVALID_LSN
    invalidation_reason: str = ""


def check_name(name: str, reserved: Collection[str] = ()) -> None:
    """
    Check that a slot may have this *name*; only then may it become part of a path.

    :param reserved: names that the server's version keeps for itself.
    :raises walsender.errors.InvalidName: it may not (42602, 42622 or 42939).

    Source: PostgreSQL, src/backend/replication/slot.c, ReplicationSlotValidateName.
    """
    if not name:
        raise InvalidName(f'replication slot name "{name}" is too short')
    if len(name.encode(errors="surrogateescape")) > MAX_NAME_LENGTH:
        raise NameTooLong(f'replication slot name "{name}" is too long')
    if not _NAME.fullmatch(name):
        raise InvalidName(
            f'replication slot name "{name}" contains invalid character',
            hint="Replication slot names may only contain lower case letters, numbers, "
            "and the underscore character.",
        )
    if name in reserved:
        raise ReservedName(f'replication slot name "{name}" is reserved')


def encode_state(state: SlotState) -> bytes:
    """Return the content of the file that keeps *state*."""
    lines = [
        f"walsender replication slot {_FORMAT}",
        f"name: {state.name}",
        f"restart_lsn: {state.restart_lsn}",
        *((f"invalidation_reason: {state.invalidation_reason}",) if state.invalidation_reason else ()),
        "",
    ]
    body = "\n".join(lines).encode("ascii")
    return body + b"crc32c: %08X\n" % google_crc32c.value(body)


def decode_state(data: bytes) -> SlotState:
    """
    Return the state that a file's content keeps.

    :raises walsender.errors.DataCorrupted: it keeps none, and why.
    """
    first = _FIRST_LINE.match(data)
    if first is None:
        raise DataCorrupted("it is no replication slot file")
    checksum = _CHECKSUM.fullmatch(data)
    if checksum is None:
        raise DataCorrupted("it is cut off or has something behind its end")
    computed = google_crc32c.value(checksum[1])
    if computed != int(checksum[2], 16):
        raise DataCorrupted(f"checksum mismatch: computed {computed:08X}, stored {checksum[2].decode()}")
    # Only now: a version that was read from damaged bytes would send somebody the wrong way.
    if int(first[1]) != _FORMAT:
        raise DataCorrupted(f"it has version {int(first[1])}, and this program reads version {_FORMAT}")
    body = _BODY.fullmatch(checksum[1].decode("latin-1"))
    if body is None:
        raise DataCorrupted("its lines are not those of a replication slot")
    state = SlotState(body[1], LSN.parse(body[2]), body[3] or "")
    if encode_state(state) != data:
        raise DataCorrupted("it was not written by this program")
    return state
