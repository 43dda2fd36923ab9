"""What must hold of all that a client is sent, and of the log."""

from __future__ import annotations

import re
import struct
from typing import Any, Final

from twisted.logger import ILogObserver, formatEvent
from zope.interface import implementer

_SQLSTATE: Final = re.compile(rb"[0-9A-Z]{5}\Z")
_KINDS: Final = b"RSKZETDCNWHdcv"


class Broken(AssertionError):
    """An invariant does not hold."""


@implementer(ILogObserver)
class Mistakes(list[str]):
    """What was logged as a failure of ours, or is more than a line."""

    def __call__(self, event: dict[str, Any]) -> None:
        """See `ILogObserver`."""
        if event.get("log_failure") is not None:
            self.append(f"{event.get('log_format')}: {event.get('log_failure')}")
        elif not (line := formatEvent(event)).isprintable():
            self.append(f"a client has written into the log: {line!r}")


def check_output(data: bytes, *, whole: bool) -> None:
    """
    Check that *data*, all that one client was sent, is answers to encryption requests and then messages.

    :param whole: the last message must be complete.
    """
    at = 0
    while data[at : at + 1] == b"N" and data[at + 1 : at + 2] in {b"", b"N", b"E", b"R", b"v"}:
        at += 1
    if data[at : at + 1] == b"E" and data[at + 1 : at + 5] not in {b"", b"\0", b"\0\0"} and data[at + 1] != 0:
        # The format of protocol 2, for those who speak nothing else: a text.
        if whole and not data.endswith(b"\0"):
            raise Broken("an error in the old format has no end")
        return
    while len(data) >= at + 5:
        kind, (length,) = data[at : at + 1], struct.unpack_from(">I", data, at + 1)
        if kind not in _KINDS or length < 4 or length > 9 << 20:
            raise Broken(f"no message: {data[at : at + 20]!r}")
        body = data[at + 5 : at + 1 + length]
        if len(body) < length - 4:
            break
        if kind == b"E":
            check_error(body)
        at += 1 + length
    if whole and at != len(data):
        raise Broken(f"the connection was closed inside a message: {data[at : at + 20]!r}")


def check_error(body: bytes) -> None:
    """Check that an ErrorResponse says what it must, and no mistake of ours."""
    fields = {part[:1]: part[1:] for part in body.split(b"\0") if part}
    if not fields.get(b"S") or not fields.get(b"M") or not _SQLSTATE.match(fields.get(b"C", b"")):
        raise Broken(f"an error without severity, SQLSTATE or text: {body!r}")
    if b"internal error" in fields[b"M"]:
        raise Broken("internal error")
