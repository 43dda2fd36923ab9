"""
The words of a replication command.

Keywords are upper case; identifiers fold to lower case; there are no comments.
Scanning is lazy, as in PostgreSQL, so that of two mistakes in a command the first
is reported; it takes time linear in the text, and not more words than a bound.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from walsender.errors import CommandSyntaxError
from walsender.lsn import LSN
from walsender.wire.body import cut_name, decode_text
from walsender.wire.reports import NoticeResponse, truncation_notice

if TYPE_CHECKING:
    from collections.abc import Container

MAX_TOKENS: Final = 10_000
"""Words in a command; the longest that a client is known to send has some forty."""

_VERTICAL_TAB_IS_BLANK_SINCE: Final = 170000
_DOUBLED_QUOTE_IN_NAME_SINCE: Final = 190000
_ULONG_DIGITS: Final = 20
_ULONG_MAX: Final = (1 << 64) - 1
_UINT32_MAX: Final = (1 << 32) - 1

_HEX: Final = rb"[0-9A-Fa-f]"
# Possessive repeats (+ behind the repeat): nothing is tried twice, so that no
# text takes more than linear time.
_TOKEN: Final = (
    rb"(?P<position>%b++/%b++)"
    rb"|(?P<word>[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*+)"
    rb"|(?P<number>[0-9]++)"
    rb"|'(?P<string>(?:[^']|'')*+)'"
    rb'|"(?P<quoted>%%b)"'
) % (_HEX, _HEX)
_TOKEN_TO_18: Final = re.compile(_TOKEN % rb'[^"]*+')
_TOKEN_FROM_19: Final = re.compile(_TOKEN % rb'(?:[^"]|"")*+')


class Kind(enum.Enum):
    """What a token is."""

    KEYWORD = enum.auto()
    IDENTIFIER = enum.auto()
    STRING = enum.auto()
    NUMBER = enum.auto()
    POSITION = enum.auto()
    OTHER = enum.auto()  # a single character
    END = enum.auto()


@dataclass(frozen=True, slots=True)
class Token:
    """
    One word.

    :ivar text: of a keyword, identifier, string, or other character.
    :ivar number: of a number or position.
    """

    kind: Kind
    text: str = ""
    number: int = 0


def _number(digits: bytes) -> int:
    """Return what strtoul makes of *digits*, cast to 32 bits: 4294967296 is 0, what is huge is all ones."""
    digits = digits.lstrip(b"0")
    if len(digits) > _ULONG_DIGITS:  # also keeps int() off texts whose conversion it refuses
        return _UINT32_MAX
    return min(int(digits or b"0"), _ULONG_MAX) & _UINT32_MAX


def _position(text: bytes) -> Token:
    high, _, low = (half.lstrip(b"0") or b"0" for half in text.partition(b"/"))
    if max(len(high), len(low)) > len("FFFFFFFF"):
        # PostgreSQL takes some of the digits; what it takes differs by version.
        return Token(Kind.OTHER, decode_text(text))
    return Token(Kind.POSITION, number=LSN(int(high, 16) << 32 | int(low, 16)))


class Scanner:
    """
    Takes the words of one command in order.

    :param version: of the server that we are, such as 180000.
    :param keywords: the keywords of that version.
    :ivar notices: one for each identifier that was cut.

    Source: PostgreSQL, src/backend/replication/repl_scanner.l.
    """

    def __init__(self, text: bytes, version: int, keywords: Container[str]) -> None:
        self._text = text
        self._at = 0
        self._tokens = 0
        self._keywords = keywords
        self._blank = re.compile(
            rb"[ \t\n\r\f\v]*+" if version >= _VERTICAL_TAB_IS_BLANK_SINCE else rb"[ \t\n\r\f]*+"
        )
        self._token = _TOKEN_FROM_19 if version >= _DOUBLED_QUOTE_IN_NAME_SINCE else _TOKEN_TO_18
        self.notices: list[NoticeResponse] = []

    def next_token(self) -> Token:
        """
        Take the next word.

        :raises CommandSyntaxError: a quote has no end, or there are too many words (42601).
        """
        self._tokens += 1
        if self._tokens > MAX_TOKENS:
            raise CommandSyntaxError("syntax error", detail=f"The command has more than {MAX_TOKENS} words.")
        blank = self._blank.match(self._text, self._at)
        self._at = self._at if blank is None else blank.end()
        match = self._token.match(self._text, self._at)
        if match is None or match.lastgroup is None:
            return self._other()
        self._at = match.end()
        text = match[match.lastgroup]
        match match.lastgroup:
            case "position":
                return _position(text)
            case "number":
                return Token(Kind.NUMBER, number=_number(text))
            case "string":
                return Token(Kind.STRING, decode_text(text.replace(b"''", b"'")))
            case "quoted":
                return self._identifier(text.replace(b'""', b'"'))
            case _:
                word = decode_text(text)
                return Token(Kind.KEYWORD, word) if word in self._keywords else self._identifier(text.lower())

    def _other(self) -> Token:
        if self._at == len(self._text):
            return Token(Kind.END)
        character = self._text[self._at : self._at + 1]
        if character in {b"'", b'"'}:
            raise CommandSyntaxError("unterminated quoted string")
        self._at += 1
        return Token(Kind.OTHER, decode_text(character))

    def _identifier(self, text: bytes) -> Token:
        name = decode_text(text)
        notice = truncation_notice(name)
        if notice is not None:
            self.notices.append(notice)
        return Token(Kind.IDENTIFIER, cut_name(name))
