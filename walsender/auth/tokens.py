"""
How ``pg_hba.conf`` and ``pg_ident.conf`` are cut into records, fields and tokens.

A record is a line, or several joined by a backslash at the end.  Fields stand
between blanks; commas join tokens to one field.  Double quotes protect blanks,
commas and ``#``, and take away a token's special meaning.  ``@file`` stands for
the tokens in another file; ``include``, ``include_if_exists`` and
``include_dir`` stand for the records of others.

What cannot be read is no exception but a `Problem` in its place, so that all
of them are told.

Source: PostgreSQL, src/backend/libpq/hba.c, next_token, next_field_expand and
tokenize_auth_file; src/backend/utils/misc/conffiles.c.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from walsender.auth.problems import Problem
from walsender.settings.file import MAX_INCLUDE_DEPTH, files_in_directory, system_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_T = TypeVar("_T")

_BLANKS: Final = " \t\r"
_INCLUDES: Final = frozenset({"include", "include_if_exists", "include_dir"})


@dataclass(frozen=True, slots=True)
class Token:
    """
    One name or keyword.

    :ivar text: without quotes.
    :ivar quoted: it begins with a quote, and so means nothing but itself.
    """

    text: str
    quoted: bool = False


Field: TypeAlias = tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """
    One record.

    :ivar file: the path of the file.
    :ivar line: where it begins, counted from 1.
    :ivar fields: at least one; none of them is empty.
    """

    file: str
    line: int
    fields: tuple[Field, ...]


class _Unreadable(Exception):
    """A record cannot be understood; the text says why."""


class RefusedRecord(ValueError):
    """
    A record does not say what it should, or nothing for us; the text says why.

    :ivar hint: what to do about it.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def read_lines(path: str, parse: Callable[[Record], _T]) -> tuple[list[_T], list[Problem]]:
    """
    Return what *parse* makes of each record of `read_records`, and all that is wrong.

    :param parse: raises `RefusedRecord`.
    """
    lines: list[_T] = []
    problems: list[Problem] = []
    for record in read_records(path):
        if isinstance(record, Problem):
            problems.append(record)
            continue
        try:
            lines.append(parse(record))
        except RefusedRecord as refused:
            problems.append(Problem(str(refused), record.file, record.line, refused.hint))
    return lines, problems


def read_records(path: str) -> Iterator[Record | Problem]:
    """
    Return the records of the file *path* and of those that it includes, in their order.

    :param path: absolute.
    """
    try:
        content = _read(path, ())
    except _Unreadable as error:
        yield Problem(str(error))
    else:
        yield from _records(content, (path,))


def _read(path: str, including: tuple[str, ...]) -> str:
    """
    Return what is in the file *path*.

    :param including: the files that led here, the outermost first.
    """
    # A file that includes itself would come to the depth in the end, but only after
    # it has been read as often as there are ways to go there.
    if path in including or len(including) > MAX_INCLUDE_DEPTH:
        raise _Unreadable(f'could not open file "{path}": maximum nesting depth exceeded')
    try:
        return Path(path).read_bytes().decode("utf-8", "surrogateescape")
    except (OSError, ValueError) as error:  # ValueError: no file name has a NUL
        raise _Unreadable(f'could not open file "{path}": {system_error(error)}') from error


def _records(content: str, including: tuple[str, ...]) -> Iterator[Record | Problem]:
    """Return the records of *content*, which is the last file of *including*."""
    path = including[-1]
    for number, line in _joined_lines(content):
        try:
            fields = tuple(_fields(line, including))
            if not fields:
                continue
            if len(fields) == 2 and fields[0][0].text in _INCLUDES:  # noqa: PLR2004 (the word and the name)
                yield from _included(fields[0][0].text, fields[1][0].text, including, number)
            else:
                yield Record(path, number, fields)
        except _Unreadable as error:
            yield Problem(str(error), path, number)


def _joined_lines(content: str) -> Iterator[tuple[int, str]]:
    """Return each line with its number, those that end in a backslash with what follows."""
    first, parts = 1, ""
    for number, line in enumerate(content.split("\n"), 1):
        text = line.rstrip("\r")
        if text.endswith("\\"):
            parts += text[:-1]
            continue
        yield first, parts + text
        first, parts = number + 1, ""
    yield first, parts


def _fields(line: str, including: tuple[str, ...]) -> Iterator[Field]:
    if "\0" in line:
        # PostgreSQL ends the line there; nobody can mean that.
        raise _Unreadable("a NUL character is not allowed")
    end = 0
    while end < len(line):
        field: list[Token] = []
        more = True
        while more:
            token, end, more = _next_token(line, end)
            if token is None:
                break
            if token.text.startswith("@") and len(token.text) > 1 and not token.quoted:
                field += _tokens_of_file(token.text[1:], including)
            else:
                field.append(token)
        if field:
            yield tuple(field)


def _next_token(line: str, start: int) -> tuple[Token | None, int, bool]:
    """
    Return the token that begins at *start* or after it, where it ends, and whether a comma follows.

    A quote that is not closed reaches to the end of the line.
    """
    at = start
    while at < len(line) and line[at] in _BLANKS + ",":
        at += 1
    text: list[str] = []
    quoted = saw_quote = inside = closing = False
    while at < len(line):
        char = line[at]
        if not inside:
            if char in _BLANKS:
                break
            if char == "#":
                at = len(line)
                break
            if char == ",":
                return Token("".join(text), quoted), at, True
        if char == '"':
            if closing:  # the second of two: one of them is meant
                text.append(char)
            saw_quote = True
            quoted = quoted or not text
            closing = inside
            inside = not inside
        else:
            text.append(char)
            closing = False
        at += 1
    if not text and not saw_quote:
        return None, at, False
    return Token("".join(text), quoted), at, False


def _tokens_of_file(name: str, including: tuple[str, ...]) -> Iterator[Token]:
    path = _location(name, including)
    for record in _records(_read(path, including), (*including, path)):
        if isinstance(record, Problem):
            raise _Unreadable(record.message)
        for field in record.fields:
            yield from field


def _included(
    directive: str, name: str, including: tuple[str, ...], number: int
) -> Iterator[Record | Problem]:
    """Return the records that an include directive in line *number* stands for."""
    if directive != "include_dir":
        path = _location(name, including)
        if directive == "include_if_exists" and not os.path.lexists(path):
            return
        yield from _records(_read(path, including), (*including, path))
        return
    if not name.strip(" \t\r\n"):
        raise _Unreadable("empty configuration directory name")
    directory = _location(name, including)
    try:
        paths = files_in_directory(directory)
    except (OSError, ValueError) as error:
        reason = system_error(error)
        raise _Unreadable(f'could not open configuration directory "{directory}": {reason}') from error
    for path in paths:
        try:
            content = _read(path, including)
        except _Unreadable as error:
            yield Problem(str(error), including[-1], number)
        else:
            yield from _records(content, (*including, path))


def _location(name: str, including: tuple[str, ...]) -> str:
    """Return the path of the file *name*, which is relative to the file that names it."""
    return os.path.normpath(Path(Path(including[-1]).parent, name))
