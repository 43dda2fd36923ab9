"""
Configuration files in postgresql.conf's syntax.

A file is read as PostgreSQL 18 reads it, so that whoever can write the one can
write the other: what is accepted here is accepted there, and the other way
round.  Names are not judged here, values are texts.  Differences: an
``include_if_exists`` forgives only a file that does not exist, not one that
may not be read, and a file that includes itself is also found when others lie
between.

Source: PostgreSQL, src/backend/utils/misc/guc-file.l, and in guc.c of the same
directory ParseConfigFile, ParseConfigDirectory and DeescapeQuotedString.
"""

from __future__ import annotations

import enum
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .values import Assignment, complaint

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_INCLUDE_DEPTH: Final = 10
"""How many files may be open inside each other, beside the first; CONF_FILE_MAX_DEPTH."""


class _Token(enum.Enum):
    ID = enum.auto()
    QUALIFIED_ID = enum.auto()
    STRING = enum.auto()
    UNQUOTED_STRING = enum.auto()
    INTEGER = enum.auto()
    REAL = enum.auto()
    EQUALS = enum.auto()
    ERROR = enum.auto()


_LETTER: Final = r"[A-Za-z_\x80-\xff]"
_ID: Final = rf"{_LETTER}[A-Za-z_0-9\x80-\xff]*"
_BLANK: Final = re.compile(r"[ \t\r]+|#.*")
# As with flex, the longest match wins, and of equally long ones the first.
_PATTERNS: Final = [
    (_Token.ID, re.compile(_ID)),
    (_Token.QUALIFIED_ID, re.compile(rf"{_ID}\.{_ID}")),
    (_Token.STRING, re.compile(r"'(?:[^'\\]|\\.|'')*'", re.DOTALL)),
    (_Token.UNQUOTED_STRING, re.compile(rf"{_LETTER}[A-Za-z_0-9\x80-\xff\-._:/]*")),
    (_Token.INTEGER, re.compile(r"[-+]?(?:0x[0-9a-fA-F]+|[0-9]+)[a-zA-Z]*")),
    (_Token.REAL, re.compile(r"[-+]?[0-9]*\.[0-9]*(?:[Ee][-+]?[0-9]+)?")),
    (_Token.EQUALS, re.compile("=")),
    (_Token.ERROR, re.compile(".", re.DOTALL)),
]
_NAMES: Final = frozenset({_Token.ID, _Token.QUALIFIED_ID})
_VALUES: Final = frozenset({_Token.ID, _Token.STRING, _Token.UNQUOTED_STRING, _Token.INTEGER, _Token.REAL})
_ESCAPE: Final = re.compile(r"\\([0-7]{1,3}|.)|''", re.DOTALL)
_ESCAPED: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_QUOTE_HINT: Final = (
    'A value that has other characters than letters, digits, "_", "-", ".", ":" and "/"'
    " must be in single quotes."
)
_UNCLOSED_HINT: Final = "The quote is not closed on that line."


def read_file(path: str, source: str) -> list[Assignment]:
    """
    Return all that *path* and the files it includes assign, in their order, duplicates too.

    :param path: an absolute path.
    :param source: where *path* itself was given, for the error when it cannot be opened.
    :raises ConfigurationError: a file cannot be read, or a line cannot be understood.
    """
    return list(_read_file(path, source, ()))


def _read_file(path: str, source: str, including: tuple[str, ...]) -> Iterator[Assignment]:
    """Read one file; *including* are those that led here, the outermost first."""
    if path in including:
        raise complaint(f'configuration file recursion in "{path}"', source)
    if len(including) > MAX_INCLUDE_DEPTH:
        raise complaint(f'could not open configuration file "{path}": maximum nesting depth exceeded', source)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        reason = f'could not open configuration file "{path}": {system_error(error)}'
        if not including:
            raise complaint(f"{reason} (from {source})", None) from error
        raise complaint(reason, source) from error
    # One character per byte: names and values may be in any encoding, and
    # escapes give bytes.  No token spans lines, so that a line stands alone.
    for number, line in enumerate(content.decode("latin-1").split("\n"), 1):
        here = f'file "{path}" line {number}'
        pair = _parse_line(line, path, number)
        if pair is None:
            continue
        name, value = pair
        directory = str(Path(path).parent)
        if name.lower() == "include_dir":
            if not value:
                raise complaint('empty configuration directory name: ""', here)
            below = str(Path(directory, value))
            try:
                files = files_in_directory(below)
            except OSError as error:
                reason = system_error(error)
                raise complaint(
                    f'could not open configuration directory "{below}": {reason}', here
                ) from error
            for file in files:
                yield from _read_file(file, here, (*including, path))
        elif name.lower() in {"include", "include_if_exists"}:
            if not value:
                raise complaint('empty configuration file name: ""', here)
            file = str(Path(directory, value))
            if name.lower() == "include" or os.path.lexists(file):
                yield from _read_file(file, here, (*including, path))
        else:
            yield Assignment(name, value, here, directory)


def _parse_line(line: str, path: str, number: int) -> tuple[str, str] | None:
    """Return name and value of a line, or ``None`` if it is empty or a comment."""
    tokens = _tokens(line)
    token, name = next(tokens, (None, ""))
    if token is None:
        return None
    if token not in _NAMES:
        raise _syntax_error(path, number, name)
    token, value = next(tokens, (None, ""))
    if token is _Token.EQUALS:
        token, value = next(tokens, (None, ""))
    if token not in _VALUES:
        raise _syntax_error(path, number, value)
    after, surplus = next(tokens, (None, ""))
    if after is not None:
        raise _syntax_error(path, number, surplus)
    if token is _Token.STRING:
        value = _ESCAPE.sub(_unescape, value[1:-1])
    if "\0" in value:
        # PostgreSQL ends the value there; nobody can mean that.
        raise _syntax_error(path, number, "\0")
    return _text(name), _text(value)


def _tokens(line: str) -> Iterator[tuple[_Token, str]]:
    end = 0
    while end < len(line):
        if blank := _BLANK.match(line, end):
            end = blank.end()
            continue
        token, text = max(
            ((token, match[0]) for token, pattern in _PATTERNS if (match := pattern.match(line, end))),
            key=lambda found: len(found[1]),
        )
        yield token, text
        end += len(text)


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if code is None:
        return "'"
    if code[0] in "01234567":
        return chr(int(code, 8) & 0xFF)
    return _ESCAPED.get(code, code)


def _text(latin: str) -> str:
    """Return the text that the bytes of a file mean; what is no UTF-8 survives as file names do."""
    return latin.encode("latin-1").decode("utf-8", "surrogateescape")


def _syntax_error(path: str, number: int, token: str) -> Exception:
    if not token:
        return complaint("syntax error", f'file "{path}" line {number}, near end of line')
    hint = _UNCLOSED_HINT if token.startswith("'") else _QUOTE_HINT  # a closed one is a value
    return complaint("syntax error", f'file "{path}" line {number}, near token "{_text(token)}"', hint)


def files_in_directory(directory: str) -> list[str]:
    """
    Return the files that an ``include_dir`` takes, in the order of their bytes.

    :raises OSError: the directory cannot be read.
    """
    with os.scandir(directory) as entries:
        names = [
            entry.name
            for entry in entries
            if entry.name.endswith(".conf") and not entry.name.startswith(".") and not entry.is_dir()
        ]
    return [str(Path(directory, name)) for name in sorted(names, key=os.fsencode)]


def system_error(error: OSError | ValueError) -> str:
    """Return what the system says is wrong, without the name of the file."""
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
