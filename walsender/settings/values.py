"""
How a text becomes a value: PostgreSQL's booleans, numbers with units, enums, paths and lists.

What is accepted, how it is rounded and what is said about the rest follow
PostgreSQL 18 and were compared with it, value by value.

Source: PostgreSQL, src/backend/utils/misc/guc.c, parse_int, convert_to_base_unit
and parse_and_validate_value; src/backend/utils/adt/bool.c, parse_bool_with_len;
src/backend/utils/adt/varlena.c, SplitGUCList.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from walsender.errors import ConfigurationError, InvalidLSN
from walsender.lsn import INVALID_LSN, LSN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_INTEGER: Final = 2**31 - 1
_HUGE: Final = 1e15  # far out of any range, and still far from where a product overflows

TIME_UNITS: Final[Mapping[str, int]] = {
    "us": 1,
    "ms": 1000,
    "s": 1000_000,
    "min": 60_000_000,
    "h": 3600_000_000,
    "d": 86400_000_000,
}
"""Units of time, the smallest first, in microseconds."""

MEMORY_UNITS: Final[Mapping[str, int]] = {"B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
"""Units of memory, the smallest first, in bytes."""

_C_SPACE: Final = " \t\n\v\f\r"
_C_INTEGER: Final = re.compile(r"[ \t-\r]*([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_C_REAL: Final = re.compile(r"[ \t-\r]*([+-]?)((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)")
_LIST_ELEMENT: Final = re.compile(r'[ \t-\r]*(?:"((?:[^"]|"")*)"|([^ \t-\r",][^ \t-\r,]*))[ \t-\r]*(,|\Z)')


def complaint(message: str, source: str | None, hint: str | None = None) -> ConfigurationError:
    """
    Return the error for a wrong setting: message, where it stands, and what to do, all in one line.

    Names and values come from files and may hold anything; what does not print is escaped.
    """
    line = message if source is None else f"{message} in {source}"
    if hint is not None:
        line = f"{line}. {hint}"
    return ConfigurationError(printable(line))


def nearest(name: str, known: Iterable[str], before: str = "") -> str | None:
    """
    Return the hint that asks for the one of *known* that a wrong *name* is closest to, if one is.

    :param before: stands before every name.
    """
    near = difflib.get_close_matches(name, list(known), 1)
    return f'Perhaps you meant "{before}{near[0]}".' if near else None


def printable(text: str) -> str:
    """Return *text* with what does not print escaped, and so in one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


@dataclass(frozen=True, slots=True)
class Assignment:
    """
    One place where a setting is given a value.

    :ivar name: the setting, as written there.
    :ivar text: the value, as written there but without quotes and escapes.
    :ivar source: the place, as error messages name it.
    :ivar directory: what a relative path in *text* is relative to.
    """

    name: str
    text: str
    source: str
    directory: str

    def invalid(self, hint: str | None = None) -> ConfigurationError:
        """Return the error for a text that is no value of this setting."""
        return ConfigurationError(f'invalid value for parameter "{self.name}": "{self.text}"', hint=hint)


class Kind(Protocol):
    """What values a setting may have."""

    @property
    def values(self) -> str:
        """The possible values, for the reference."""

    def parse(self, given: Assignment) -> object:
        """
        Return the value that is meant.

        :raises ConfigurationError: there is no such value, or it is out of range; message and hint
            are PostgreSQL's and do not say where, since a start-up packet is judged here too.
        """


@dataclass(frozen=True, slots=True)
class Boolean:
    """``on`` or ``off``, or what PostgreSQL takes for them; a ``bool``."""

    @property
    def values(self) -> str:
        """The possible values, for the reference."""
        return "`on`, `off`"

    def parse(self, given: Assignment) -> bool:
        """Return the value; any unambiguous beginning of a word will do."""
        text = given.text.lower()
        if text in {"1", "on"} or (text and ("true".startswith(text) or "yes".startswith(text))):
            return True
        if text in {"0", "of", "off"} or (text and ("false".startswith(text) or "no".startswith(text))):
            return False
        raise ConfigurationError(f'parameter "{given.name}" requires a Boolean value')


@dataclass(frozen=True, slots=True)
class Start:
    """A place in WAL to begin at, or none; an `LSN`, 0 where ``on`` is given, or ``None``."""

    @property
    def values(self) -> str:
        """The possible values, for the reference."""
        return "`off`, `on`, LSN"

    def parse(self, given: Assignment) -> LSN | None:
        """Return the LSN."""
        try:
            return LSN.parse(given.text)
        except InvalidLSN:
            pass
        try:
            return INVALID_LSN if Boolean().parse(given) else None
        except ConfigurationError as error:
            raise given.invalid("Available values: off, on, an LSN such as 0/3000028.") from error


@dataclass(frozen=True, slots=True)
class Enumeration:
    """One of a few words, in any case; a ``str``."""

    words: tuple[str, ...]

    @property
    def values(self) -> str:
        """The possible values, for the reference."""
        return ", ".join(f"`{word}`" for word in self.words)

    def parse(self, given: Assignment) -> str:
        """Return the word, spelled as in the table."""
        for word in self.words:
            if word.lower() == given.text.lower():
                return word
        raise given.invalid(f"Available values: {', '.join(self.words)}.")


@dataclass(frozen=True, slots=True)
class Integer:
    """
    A whole number; an ``int``.

    :ivar minimum: the smallest value, in base units.
    :ivar maximum: the largest value, in base units; at most `MAX_INTEGER`.
    :ivar unit: the base unit, which a number without one is in; ``None`` where no unit is allowed.
    """

    minimum: int
    maximum: int
    unit: str | None = None

    @property
    def values(self) -> str:
        """The possible values, for the reference."""
        suffix = f" {self.unit}" if self.unit else ""
        return f"{self.minimum}{suffix} .. {self.maximum}{suffix}"

    def parse(self, given: Assignment) -> int | float:
        """Return the number in base units, rounded as PostgreSQL rounds."""
        return self._count(given)

    def _count(self, given: Assignment) -> int:
        number, rest = _leading_number(given)
        if rest:
            number = self._in_base_unit(number, rest, given)
        if not -MAX_INTEGER - 1 <= (count := round(number)) <= MAX_INTEGER:
            raise given.invalid("Value exceeds integer range.")
        if not self.minimum <= count <= self.maximum:
            suffix = f" {self.unit}" if self.unit else ""
            raise ConfigurationError(
                f'{count}{suffix} is outside the valid range for parameter "{given.name}" ({self.values})'
            )
        return count

    def _in_base_unit(self, number: float, unit: str, given: Assignment) -> float:
        if self.unit is None:
            raise given.invalid()
        sizes = TIME_UNITS if self.unit in TIME_UNITS else MEMORY_UNITS
        units = list(sizes)
        if unit not in sizes:
            raise given.invalid(
                "Valid units for this parameter are "
                + ", ".join(f'"{name}"' for name in units[:-1])
                + f', and "{units[-1]}".'
            )
        if abs(number) > _HUGE:
            return number
        number *= sizes[unit] / sizes[self.unit]
        # A fraction such as 30.1GB means a whole number of the next smaller unit.
        if unit != units[0]:
            smaller = sizes[units[units.index(unit) - 1]] / sizes[self.unit]
            number = round(number / smaller) * smaller
        return number


@dataclass(frozen=True, slots=True)
class Duration(Integer):
    """A time, counted and limited in its base unit; seconds as a ``float``."""

    unit: str = "ms"

    def parse(self, given: Assignment) -> float:
        """Return the time in seconds, after rounding to whole base units."""
        return self._count(given) * TIME_UNITS[self.unit] / 1e6


@dataclass(frozen=True, slots=True)
class AbsolutePath:
    """A file or directory; an absolute path as a ``str``, which need not exist."""

    @property
    def values(self) -> str:
        """The possible values, for the reference."""
        return "path"

    def parse(self, given: Assignment) -> str:
        """Return the path, made absolute."""
        if not given.text or "\0" in given.text:
            raise given.invalid("A path is expected.")
        return str(Path(given.directory, given.text))


@dataclass(frozen=True, slots=True)
class OptionalPath:
    """A file or directory, or none; an absolute path as a ``str``, which may be empty."""

    @property
    def values(self) -> str:
        """The possible values, for the reference."""
        return "path"

    def parse(self, given: Assignment) -> str:
        """Return the path, made absolute."""
        return AbsolutePath().parse(given) if given.text else ""


@dataclass(frozen=True, slots=True)
class String:
    """Any text; a ``str``."""

    @property
    def values(self) -> str:
        """The possible values, for the reference."""
        return "text"

    def parse(self, given: Assignment) -> str:
        """Return the text as it is."""
        if "\0" in given.text:
            raise given.invalid()
        return given.text


@dataclass(frozen=True, slots=True)
class StringList:
    """Strings with commas between them, at least one; a ``tuple`` of ``str``."""

    @property
    def values(self) -> str:
        """The possible values, for the reference."""
        return "list"

    def parse(self, given: Assignment) -> tuple[str, ...]:
        """Return the strings; in double quotes they may hold commas and blanks."""
        strings = []
        end = 0
        while True:
            match = _LIST_ELEMENT.match(given.text, end)
            string = match and (match[2] or match[1].replace('""', '"'))
            if not match or not string:
                raise given.invalid(
                    "A list has commas between its elements; one that contains a comma or a blank must be"
                    " in double quotes."
                )
            strings.append(string)
            end = match.end()
            if not match[3]:
                return tuple(strings)


def quoted_element(string: str) -> str:
    """Return *string* so that a list has it as one element, whatever it contains."""
    doubled = string.replace('"', '""')
    return f'"{doubled}"'


def _leading_number(given: Assignment) -> tuple[float, str]:
    """Return the number that C's strtol or strtod would find first, and the text behind it, trimmed."""
    match = _C_INTEGER.match(given.text)
    rest = given.text[match.end() :] if match else given.text
    if rest.startswith((".", "e", "E")):
        match = _C_REAL.match(given.text)
    if match is None:
        raise given.invalid()
    sign, digits = match.groups()
    if digits[:2] in {"0x", "0X"}:
        number = float(min(int(digits, 16), 1 << 64))
    elif len(digits) > 1 and digits.startswith("0") and match.re is _C_INTEGER:
        number = float(min(int(digits, 8), 1 << 64))
    else:
        number = float(digits)
    if math.isinf(number):
        raise given.invalid()
    return (-number if sign == "-" else number), given.text[match.end() :].strip(_C_SPACE)
