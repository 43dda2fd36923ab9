"""The functions of texts."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from walsender.wire import encode_text

from .budget import check_length
from .environment import Environment, Function
from .errors import InvalidArgument
from .pattern_search import found
from .patterns import regular_expression
from .types import (
    ANY,
    BOOL,
    INT4,
    TEXT,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def _substring(_: Environment, text: str, start: int, count: int | None = None) -> str:
    if count is None:
        return text[max(start - 1, 0) :]
    if count < 0:
        raise NegativeLength("negative substring length not allowed")
    return text[max(start - 1, 0) : max(start - 1 + count, 0)]


def _substring_of_pattern(environment: Environment, text: str, pattern: str) -> str | None:
    return found(regular_expression(pattern, ignore_case=False), text, environment.budget)


class NegativeLength(InvalidArgument, sqlstate="22011"):
    """A substring cannot be shorter than nothing."""


def _left(_: Environment, text: str, count: int) -> str:
    return text[:count] if count else ""


def _right(_: Environment, text: str, count: int) -> str:
    return text[-count:] if count else ""


def _pad(text: str, length: int, fill: str, *, before: bool) -> str:
    check_length(length)
    text = text[: max(length, 0)]
    missing = length - len(text)
    if missing <= 0 or not fill:
        return text
    padding = (fill * (missing // len(fill) + 1))[:missing]
    return padding + text if before else text + padding


def _replace(_: Environment, text: str, old: str, new: str) -> str:
    if not old:
        return text
    check_length(len(text) + text.count(old) * max(len(new) - len(old), 0))
    return text.replace(old, new)


def _split_part(environment: Environment, text: str, delimiter: str, number: int) -> str:
    if number == 0:
        raise InvalidArgument("field position must not be zero")
    count = text.count(delimiter) if delimiter else 0
    before = number - 1 if number > 0 else count + 1 + number
    if not 0 <= before <= count:
        return ""
    if not delimiter:
        return text
    place = 0
    for _ in range(before):
        environment.budget.step()
        place = text.index(delimiter, place) + len(delimiter)
    return text[place:].partition(delimiter)[0]


def joined(separator: str, texts: Iterable[str | None]) -> str:
    """Return *texts* with *separator* between, without those that are NULL."""
    there = [text for text in texts if text is not None]
    check_length(sum(map(len, there)) + len(separator) * len(there))
    return separator.join(there)


def _quote_ident(_: Environment, text: str) -> str:
    plain = text[:1].isalpha() and text.replace("_", "a").isalnum() and text == text.lower()
    escaped = text.replace('"', '""')
    return text if plain and text.isascii() else f'"{escaped}"'


def _quote_literal(_: Environment, text: str) -> str:
    escaped = text.replace("'", "''")
    if "\\" in text:
        backslashes = escaped.replace("\\", "\\\\")
        return f"E'{backslashes}'"
    return f"'{escaped}'"


def text_functions() -> list[Function]:
    """Return them."""
    one, two = (TEXT,), (TEXT, TEXT)
    functions = [
        Function("length", one, INT4, lambda _, text: len(text)),
        Function("char_length", one, INT4, lambda _, text: len(text)),
        Function("octet_length", one, INT4, lambda _, text: len(encode_text(text))),
        Function("lower", one, TEXT, lambda _, text: text.lower()),
        Function("upper", one, TEXT, lambda _, text: text.upper()),
        Function("reverse", one, TEXT, lambda _, text: text[::-1]),
        Function(
            "md5",
            one,
            TEXT,
            lambda _, text: hashlib.md5(encode_text(text), usedforsecurity=False).hexdigest(),
        ),
        Function("quote_ident", one, TEXT, _quote_ident),
        Function("quote_literal", one, TEXT, _quote_literal),
        Function("left", (TEXT, INT4), TEXT, _left),
        Function("right", (TEXT, INT4), TEXT, _right),
        Function("replace", (TEXT, TEXT, TEXT), TEXT, _replace),
        Function("split_part", (TEXT, TEXT, INT4), TEXT, _split_part),
        Function("position", two, INT4, lambda _, text, part: text.find(part) + 1),
        Function("strpos", two, INT4, lambda _, text, part: text.find(part) + 1),
        Function("starts_with", two, BOOL, lambda _, text, part: text.startswith(part)),
        Function("concat_ws", (TEXT, ANY), TEXT, _concat_ws, strict=False, variadic=True),
        Function("concat", (ANY,), TEXT, _concat, strict=False, variadic=True),
    ]
    functions += [
        Function(name, (TEXT, INT4, INT4), TEXT, _substring, optional=1) for name in ("substring", "substr")
    ]
    functions.append(Function("substring", two, TEXT, _substring_of_pattern))
    functions += [
        Function(name, (TEXT, INT4, TEXT), TEXT, _padding(before=before), optional=1)
        for name, before in (("lpad", True), ("rpad", False))
    ]
    sides = (("btrim", True, True), ("ltrim", True, False), ("rtrim", False, True))
    functions += [
        Function(name, two, TEXT, _trimming(left, right), optional=1) for name, left, right in sides
    ]
    return functions


def _concat_ws(_: Environment, separator: str | None, *texts: str | None) -> str | None:
    return None if separator is None else joined(separator, texts)


def _concat(_: Environment, *texts: str | None) -> str:
    return joined("", texts)


def _padding(*, before: bool) -> Callable[..., str]:
    def call(_: Environment, text: str, length: int, fill: str = " ") -> str:
        return _pad(text, length, fill, before=before)

    return call


def _trimming(left: bool, right: bool) -> Callable[..., str]:
    def call(environment: Environment, text: str, characters: str = " ") -> str:
        # Not Python's own, which looks through all of them for each character, and lets nobody else run.
        unwanted, step = frozenset(characters), environment.budget.step
        begin, end = 0, len(text)
        while left and begin < end and text[begin] in unwanted:
            step()
            begin += 1
        while right and begin < end and text[end - 1] in unwanted:
            step()
            end -= 1
        return text[begin:end]

    return call
