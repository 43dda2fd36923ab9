"""
The words of a statement.

Linear in the text, by one regular expression without anything to try twice.

Source of the rules: PostgreSQL's documentation, "Lexical Structure"; operators end as in scan.l: not in
``+`` or ``-`` unless they have one of the characters that make it no arithmetic.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final

from walsender.wire import cut_name

from .errors import NotSupported, SqlSyntaxError, TooComplex

MAX_TOKENS: Final = 20_000
"""Words in a statement; the longest query of a monitoring system that we know has some hundred."""


class Kind(enum.Enum):
    """What a token is."""

    WORD = enum.auto()  # an identifier or key word, in lower case
    QUOTED = enum.auto()  # an identifier in double quotes
    STRING = enum.auto()
    NUMBER = enum.auto()
    PARAMETER = enum.auto()
    OPERATOR = enum.auto()  # also punctuation
    END = enum.auto()


@dataclass(frozen=True, slots=True)
class Token:
    """
    One word.

    :ivar text: what it means: without quotes, in lower case if that is the same.
    :ivar at: where it begins, counted from 0.
    :ivar end: where it ends.
    """

    kind: Kind
    text: str
    at: int
    end: int


_TOKEN: Final = re.compile(
    r"""
    (?P<blank>[ \t\n\r\f\v]++|--[^\n\r]*+)
  | (?P<comment>/\*)
  | (?P<special>[eE]'(?:[^'\\]|\\.|'')*+')
  | (?P<other>(?:[bBxXnN]|[uU]&)')
  | (?P<word>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*+)
  | (?P<string>'(?:[^']|'')*+')
  | (?P<quoted>"(?:[^"]|"")*+")
  | (?P<parameter>\$[0-9]++)
  | (?P<dollar>\$(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*+)?\$)
  | (?P<number>0[xX](?:_?[0-9a-fA-F])++
      |(?:[0-9](?:_?[0-9])*+(?:\.(?!\.)[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?)
  | (?P<punctuation>::|:=|=>|\.\.|[,()\[\].;:])
  | (?P<operator>[-+*/<>=~!@\#%^&|`?]++)
    """,
    re.VERBOSE | re.DOTALL,
)
_WORD: Final = re.compile("[A-Za-z0-9_$\x80-\U0010ffff]++")
_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")
_ESCAPE: Final = re.compile(
    r"\\(?:x[0-9A-Fa-f]{1,2}|[0-7]{1,3}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)|''", re.DOTALL
)
_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_NOT_ARITHMETIC: Final = frozenset("~!@#%^&|`?")
_SAME: Final = {"!=": "<>"}
_MAX_CODE_POINT: Final = 0x10FFFF


def near(text: str, at: int, end: int) -> SqlSyntaxError:
    """Return the error at a token."""
    if at >= len(text):
        return SqlSyntaxError("syntax error at end of input", len(text) + 1)
    return SqlSyntaxError(f'syntax error at or near "{text[at:end]}"', at + 1)


def tokens(text: str) -> list[Token]:
    """
    Return the tokens of *text*, the last of them an END.

    :raises SqlSyntaxError: something is no token.
    """
    found: list[Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _no_token(text, at)
        kind, end = match.lastgroup, match.end()
        if kind == "comment":
            end = _comment_end(text, at)
        elif kind == "dollar":
            close = text.find(match[0], end)
            if close < 0:
                raise SqlSyntaxError(f'unterminated dollar-quoted string at or near "{text[at:]}"', at + 1)
            found.append(Token(Kind.STRING, text[end:close], at, close + len(match[0])))
            end = close + len(match[0])
        elif kind == "operator":
            end = _operator_end(text, at, end)
            word = text[at:end]
            found.append(Token(Kind.OPERATOR, _SAME.get(word, word), at, end))
        elif kind != "blank":
            assert kind is not None, "every alternative has a name"
            if kind == "number" and (junk := _WORD.match(text, end)):
                raise SqlSyntaxError(
                    f'trailing junk after numeric literal at or near "{text[at : junk.end()]}"', at + 1
                )
            found.append(_token(kind, match[0], at, end))
        at = end
        if len(found) > MAX_TOKENS:
            raise TooComplex("statement is too complex", detail=f"It has more than {MAX_TOKENS} words.")
    found.append(Token(Kind.END, "", len(text), len(text)))
    return found


def _token(kind: str, text: str, at: int, end: int) -> Token:
    match kind:
        case "word":
            # Bytes that are no ASCII letters stay as they are, as in PostgreSQL with most encodings.
            lower = "".join(chr(ord(char) + 32) if "A" <= char <= "Z" else char for char in text)
            return Token(Kind.WORD, cut_name(lower), at, end)
        case "quoted":
            name = text[1:-1].replace('""', '"')
            if not name:
                raise SqlSyntaxError(f'zero-length delimited identifier at or near "{text}"', at + 1)
            return Token(Kind.QUOTED, cut_name(name), at, end)
        case "string":
            return Token(Kind.STRING, text[1:-1].replace("''", "'"), at, end)
        case "special":
            return Token(Kind.STRING, _ESCAPE.sub(lambda match: _unescape(match[0], at), text[2:-1]), at, end)
        case "other":
            raise NotSupported("bit strings and strings with Unicode escapes are not supported", at + 1)
        case "parameter":
            return Token(Kind.PARAMETER, text[1:], at, end)
        case "number":
            return Token(Kind.NUMBER, text.replace("_", "").lower(), at, end)
    return Token(Kind.OPERATOR, text, at, end)


def _unescape(escape: str, at: int) -> str:
    """Return what an escape in E'…' stands for."""
    if escape == "''":
        return "'"
    body = escape[1:]
    if body in _ESCAPES:
        return _ESCAPES[body]
    if body[0] in "xuU" and len(body) > 1:
        code = int(body[1:], 16)
    elif body[0] in "01234567":
        code = int(body, 8) & 0xFF
    else:
        return body
    if not 0 < code <= _MAX_CODE_POINT or 0xD800 <= code <= 0xDFFF:
        raise SqlSyntaxError("invalid Unicode escape value", at + 1)
    return chr(code)


def _operator_end(text: str, at: int, end: int) -> int:
    """Return where an operator ends; behind it may be a comment, which is not at its beginning, or a sign."""
    run = text[at:end]
    for comment in ("--", "/*"):
        place = run.find(comment)
        if place >= 0:
            run = run[:place]
    while len(run) > 1 and run[-1] in "+-" and not _NOT_ARITHMETIC.intersection(run):
        run = run[:-1]
    return at + len(run)


def _comment_end(text: str, at: int) -> int:
    """Return where the comment that begins at *at* ends; they nest."""
    depth = 0
    for edge in _COMMENT_EDGE.finditer(text, at):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    raise SqlSyntaxError(f'unterminated /* comment at or near "{text[at:]}"', at + 1)


def _no_token(text: str, at: int) -> SqlSyntaxError:
    if text[at] == "'" or text[at : at + 2] in {"e'", "E'"}:
        return SqlSyntaxError(f'unterminated quoted string at or near "{text[at:]}"', at + 1)
    if text[at] == '"':
        return SqlSyntaxError(f'unterminated quoted identifier at or near "{text[at:]}"', at + 1)
    return near(text, at, at + 1)
