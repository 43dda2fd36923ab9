"""
The commands of the first walsender, which were no grammar but a `strcmp` and a `sscanf`.

``START_REPLICATION %X/%X`` is taken as glibc's sscanf took it, including
what nobody meant: any blanks or none behind the keyword and before each number,
signs, ``0x``, numbers beyond 32 bits, anything at all behind the second number.
"""

from __future__ import annotations

import re
from typing import Final

from walsender.errors import ProtocolViolation
from walsender.lsn import LSN
from walsender.wire.body import decode_text
from walsender.wire.framing import MAX_COMMAND, MessageRules
from walsender.wire.statements import IdentifySystem, StartReplication

HANDSHAKE_MESSAGES: Final = MessageRules(dict.fromkeys(b"QX", MAX_COMMAND), otherwise=MAX_COMMAND)
"""
Before the stream begins: every type is framed, only ``Q`` and ``X`` are looked into.

The others come out as `UnknownMessage`, for FATAL ``invalid standby handshake message type N``.
"""

_ULONG_BITS: Final = 64
_ULONG_MAX: Final = (1 << _ULONG_BITS) - 1
_UINT32_MAX: Final = (1 << 32) - 1

# isspace() in C's locale.  Every repeat is possessive: sscanf never goes back.
# "0x" without a digit was 0 to glibc until 2025; the C standard says it is nothing.
_BLANKS: Final = rb"[ \t\n\v\f\r]*+"
_NUMBER: Final = _BLANKS + rb"([+-]?+)((?>0[xX][0-9A-Fa-f]*+|[0-9A-Fa-f]++))"
_START_REPLICATION: Final = re.compile(rb"START_REPLICATION" + _BLANKS + _NUMBER + rb"/" + _NUMBER)


def _unsigned(sign: bytes, digits: bytes) -> int:
    """Return what strtoul makes of a number, stored in 32 bits: saturated, negated, cut off."""
    number = int(digits.lower().removeprefix(b"0x") or b"0", 16)
    if number > _ULONG_MAX:
        number = _ULONG_MAX  # whatever the sign
    elif sign == b"-":
        number = -number
    return number & _UINT32_MAX


def parse_first_dialect_query(text: bytes) -> IdentifySystem | StartReplication:
    """
    Return the command that *text*, of a `Query`, is.

    :raises ProtocolViolation: it is neither of the two (FATAL 08P01).

    Source: PostgreSQL, src/backend/replication/walsender.c as first committed for 8.5.
    """
    if text == b"IDENTIFY_SYSTEM":
        return IdentifySystem()
    match = _START_REPLICATION.match(text)
    if match is None:
        raise ProtocolViolation(f"invalid standby query string: {decode_text(text)}")
    log_id, offset = _unsigned(match[1], match[2]), _unsigned(match[3], match[4])
    return StartReplication(LSN(log_id << 32 | offset))
