"""How failures and remarks are told: ErrorResponse, NoticeResponse, and the format before them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from walsender.wire.body import MAX_NAME_BYTES, BodyReader, cut_name, decode_text, encode_text
from walsender.wire.frontend import frame

if TYPE_CHECKING:
    from walsender.errors import WalsenderError


@dataclass(frozen=True, slots=True)
class _Report:
    """
    Fields, each Byte1 code and String, then a NUL; in the order in which PostgreSQL sends them.

    :ivar others: further fields, code and text, sent last (position, routine and so on).
    """

    type_byte: ClassVar[int]
    severity: str
    sqlstate: str
    message: str
    detail: str | None = None
    hint: str | None = None
    others: tuple[tuple[str, str], ...] = ()

    def encode(self, *, unlocalized_severity: bool = True) -> bytes:
        """
        Return the message's bytes.

        Never fails for what a text contains, since it is how failures are told: a
        text ends before its first NUL, as it would in C (and does in PostgreSQL's
        ``invalid standby message type "`` for the byte 0).

        :param unlocalized_severity: send the severity as ``V`` too, as 9.6 and later do.
        """
        fields = [("S", self.severity), ("C", self.sqlstate), ("M", self.message)]
        if unlocalized_severity:
            fields.insert(1, ("V", self.severity))
        if self.detail is not None:
            fields.append(("D", self.detail))
        if self.hint is not None:
            fields.append(("H", self.hint))
        fields += self.others
        body = b"".join(encode_text(code + text).partition(b"\0")[0] + b"\0" for code, text in fields)
        return frame(self.type_byte, body + b"\0")

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Return the message with this body; missing fields are empty."""
        reader = BodyReader(body)
        known: dict[str, str] = {}
        others = []
        while field := reader.string():
            code, text = decode_text(field[:1]), decode_text(field[1:])
            if code in {"S", "V", "C", "M", "D", "H"} and code not in known:
                known[code] = text
            else:
                others.append((code, text))
        reader.end()
        return cls(
            known.get("V", known.get("S", "")),
            known.get("C", ""),
            known.get("M", ""),
            known.get("D"),
            known.get("H"),
            tuple(others),
        )


@dataclass(frozen=True, slots=True)
class ErrorResponse(_Report):
    """``E``: a command or the connection has failed."""

    type_byte: ClassVar[int] = ord("E")

    @classmethod
    def from_error(cls, error: WalsenderError, *, severity: str | None = None) -> Self:
        """
        Return what the client is told about *error*.

        :param severity: instead of the error's own: a dialect or a phase in which no
            error is recoverable makes each FATAL.
        """
        return cls(severity or error.severity, error.sqlstate, error.message, error.detail, error.hint)


@dataclass(frozen=True, slots=True)
class NoticeResponse(_Report):
    """``N``: something that the client may show and need not act on."""

    type_byte: ClassVar[int] = ord("N")


def truncation_notice(name: str) -> NoticeResponse | None:
    """Return what PostgreSQL says when it cuts *name* to 63 bytes; ``None`` if it need not."""
    if len(encode_text(name)) <= MAX_NAME_BYTES:
        return None
    return NoticeResponse("NOTICE", "42622", f'identifier "{name}" will be truncated to "{cut_name(name)}"')


def old_format_error(error: WalsenderError) -> bytes:
    """
    Return *error* as protocols before 3.0 write it: ``E``, one String, no length.

    Source: PostgreSQL, src/backend/utils/error/elog.c, send_message_to_frontend.
    """
    return b"E" + encode_text(f"{error.severity}:  {error.message}\n").partition(b"\0")[0] + b"\0"
