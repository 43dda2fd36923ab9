"""
How a text becomes a value.

The tables were made with PostgreSQL 18: ``postgres -C NAME -c NAME=TEXT`` for
wal_sender_timeout (ms), authentication_timeout (s), max_wal_senders (no unit),
min_wal_size (MB) and fsync.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import ConfigurationError
from walsender.settings.values import (
    MAX_INTEGER,
    AbsolutePath,
    Assignment,
    Boolean,
    Duration,
    Enumeration,
    Integer,
    Kind,
    Start,
    StringList,
    complaint,
    quoted_element,
)

MILLISECONDS = Integer(0, MAX_INTEGER, "ms")
SECONDS = Integer(1, 600, "s")
NUMBER = Integer(0, 262143)
MEGABYTES = Integer(2, MAX_INTEGER, "MB")

INTEGERS = {
    MILLISECONDS: {
        "60s": 60000,
        "1min": 60000,
        " 200 ms": 200,
        "200ms ": 200,
        "1.5s": 1500,
        "1.5": 2,
        "2.5": 2,
        "3.5": 4,
        "0.5ms": 0,
        "1500us": 2,
        "2500us": 2,
        "1499us": 1,
        "0x10": 16,
        "010": 8,
        "1e3": 1000,
        "1h": 3600000,
        "1d": 86400000,
        "1.5 h": 5400000,
        "0.1min": 6000,
        ".5s": 500,
        "+5": 5,
        "1000000us": 1000,
        "1.0000005h": 3600000,
        "0.0004s": 0,
        "2147483647.4": 2147483647,
        "0": 0,
    },
    SECONDS: {"1500ms": 2, "2500ms": 2, "1min": 60, "600": 600, "0.6": 1},
    NUMBER: {"5": 5, "0x1F": 31, "5.5": 6, "6.5": 6, "5 ": 5, "1e2": 100, "00": 0},
    MEGABYTES: {
        "64": 64,
        "1GB": 1024,
        "1.5GB": 1536,
        "100000kB": 98,
        "1TB": 1048576,
        "1.01GB": 1034,
    },
}

TIME_HINT = 'Valid units for this parameter are "us", "ms", "s", "min", "h", and "d".'
MEMORY_HINT = 'Valid units for this parameter are "B", "kB", "MB", "GB", and "TB".'
RANGE_HINT = "Value exceeds integer range."

NO_INTEGERS = {
    MILLISECONDS: {
        "5 parsecs": TIME_HINT,
        "08": TIME_HINT,
        "1e": TIME_HINT,
        "5 s x": TIME_HINT,
        "60S": TIME_HINT,
        "1MB": TIME_HINT,
        "": None,
        "abc": None,
        "1e400": None,
        "nan": None,
        ".": None,
        "- 5": None,
        "30d": RANGE_HINT,
        "99999999999": RANGE_HINT,
        "1e308d": RANGE_HINT,
        "-1e300": RANGE_HINT,
        "0x" + "f" * 5000: RANGE_HINT,
        "9" * 5000: None,
    },
    NUMBER: {"5s": None, "5kB": None},
    MEGABYTES: {"5 parsecs": MEMORY_HINT, "64mb": MEMORY_HINT},
}

OUT_OF_RANGE = {
    MILLISECONDS: {
        "-1": '-1 ms is outside the valid range for parameter "x" (0 ms .. 2147483647 ms)',
    },
    SECONDS: {
        "0": '0 s is outside the valid range for parameter "x" (1 s .. 600 s)',
        "500ms": '0 s is outside the valid range for parameter "x" (1 s .. 600 s)',
        "11min": '660 s is outside the valid range for parameter "x" (1 s .. 600 s)',
    },
    NUMBER: {
        "262144": '262144 is outside the valid range for parameter "x" (0 .. 262143)',
        "-1": '-1 is outside the valid range for parameter "x" (0 .. 262143)',
    },
    MEGABYTES: {
        "1048576B": '1 MB is outside the valid range for parameter "x" (2 MB .. 2147483647 MB)',
    },
}

TRUE = ["on", "ON", "t", "tru", "TRUE", "y", "yes", "1"]
FALSE = ["off", "of", "f", "fal", "False", "n", "no", "0"]
NO_BOOLEANS = ["o", "", "2", "01", " on", "on ", "truex", "onn", "nope", "nay"]


def assignment(text: str) -> Assignment:
    """Return *text* as a value of ``x`` that stands nowhere in particular."""
    return Assignment("x", text, "there", "/base")


class ValuesTestCase(SynchronousTestCase):
    def parse(self, kind: Kind, text: str) -> object:
        """Return what *kind* makes of *text*."""
        return kind.parse(assignment(text))

    def refusal(self, kind: Kind, text: str) -> str:
        """Return the message with which *kind* refuses *text*."""
        error = self.assertRaises(ConfigurationError, kind.parse, assignment(text))
        return error.message if error.hint is None else f"{error.message}. {error.hint}"


class IntegerTests(ValuesTestCase):
    def test_valuesAreThoseOfPostgreSQL(self) -> None:
        """Units, bases and rounding give the number that PostgreSQL gets."""
        for kind, cases in INTEGERS.items():
            for text, expected in cases.items():
                self.assertEqual((text, self.parse(kind, text)), (text, expected))

    def test_refusalsAreThoseOfPostgreSQL(self) -> None:
        """What is no number is refused with the message and the hint of PostgreSQL."""
        for kind, cases in NO_INTEGERS.items():
            for text, hint in cases.items():
                expected = f'invalid value for parameter "x": "{text}"'
                self.assertEqual(
                    self.refusal(kind, text), expected if hint is None else f"{expected}. {hint}"
                )

    def test_rangeIsNamedAsByPostgreSQL(self) -> None:
        """A number out of range is refused with value, range and base unit."""
        for kind, cases in OUT_OF_RANGE.items():
            for text, message in cases.items():
                self.assertEqual(self.refusal(kind, text), f"{message}")

    @given(st.text(alphabet=st.one_of(st.sampled_from("0123456789xeE+-. \tusmhdinkMGTB"), st.characters())))
    def test_anyTextIsANumberOrRefused(self, text: str) -> None:
        """Whatever stands for a number gives one within the range, or a ConfigurationError."""
        for kind in INTEGERS:
            try:
                value = kind.parse(assignment(text))
            except ConfigurationError:
                continue
            self.assertTrue(kind.minimum <= value <= kind.maximum)

    @given(st.integers(0, MAX_INTEGER))
    def test_wholeNumbersMeanThemselves(self, number: int) -> None:
        """Every whole number in range is itself, in decimal and in hexadecimal."""
        self.assertEqual(self.parse(MILLISECONDS, str(number)), number)
        self.assertEqual(self.parse(MILLISECONDS, hex(number)), number)


class DurationTests(ValuesTestCase):
    def test_valueIsInSeconds(self) -> None:
        """A time is rounded to its base unit and then given in seconds."""
        self.assertEqual(self.parse(Duration(0, MAX_INTEGER), "1500us"), 0.002)
        self.assertEqual(self.parse(Duration(0, MAX_INTEGER), "200"), 0.2)
        self.assertEqual(self.parse(Duration(1, 600, "s"), "1min"), 60.0)

    def test_rangeIsInBaseUnits(self) -> None:
        """The message about the range speaks in base units, not in seconds."""
        self.assertEqual(
            self.refusal(Duration(1, 10000), "11s"),
            '11000 ms is outside the valid range for parameter "x" (1 ms .. 10000 ms)',
        )


class BooleanTests(ValuesTestCase):
    def test_wordsAndTheirBeginnings(self) -> None:
        """All that PostgreSQL takes for true or false is taken for the same."""
        for text in TRUE:
            self.assertIs(self.parse(Boolean(), text), True, text)
        for text in FALSE:
            self.assertIs(self.parse(Boolean(), text), False, text)

    def test_everythingElseIsRefused(self) -> None:
        """What is ambiguous or no Boolean is refused as PostgreSQL refuses it."""
        for text in NO_BOOLEANS:
            self.assertEqual(self.refusal(Boolean(), text), 'parameter "x" requires a Boolean value')


class EnumerationTests(ValuesTestCase):
    def test_caseDoesNotMatter(self) -> None:
        """A word is found in any case and comes back as the table spells it."""
        self.assertEqual(self.parse(Enumeration(("auto", "8.5")), "AUTO"), "auto")
        self.assertEqual(self.parse(Enumeration(("auto", "8.5")), "8.5"), "8.5")

    def test_refusalListsTheWords(self) -> None:
        """Another word is refused, and the hint lists those that there are."""
        self.assertEqual(
            self.refusal(Enumeration(("auto", "8.5")), "9.0"),
            'invalid value for parameter "x": "9.0". Available values: auto, 8.5.',
        )


class StartTests(ValuesTestCase):
    def test_positionOrSwitch(self) -> None:
        """A position is one, ``on`` is the earliest and ``off`` is none."""
        for text, expected in {
            "0/3000028": 0x3000028,
            "a/B": 0xA0000000B,
            "on": 0,
            "1": 0,
            "off": None,
        }.items():
            self.assertEqual(self.parse(Start(), text), expected)

    def test_everythingElseIsRefused(self) -> None:
        """What is neither is refused with an example."""
        for text in ("5", "0/", "0/123456789", "perhaps", ""):
            self.assertEqual(
                self.refusal(Start(), text),
                f'invalid value for parameter "x": "{text}". '
                "Available values: off, on, an LSN such as 0/3000028.",
            )


class AbsolutePathTests(ValuesTestCase):
    def test_relativePathsStartWhereTheyAreWritten(self) -> None:
        """A relative path is completed with the assignment's directory, an absolute one is left alone."""
        self.assertEqual(self.parse(AbsolutePath(), "wal"), "/base/wal")
        self.assertEqual(self.parse(AbsolutePath(), "/wal"), "/wal")

    def test_upwardStepsAreLeftToTheSystem(self) -> None:
        """``..`` stays, since behind a symbolic link it means another directory than the text says."""
        self.assertEqual(self.parse(AbsolutePath(), "../wal"), "/base/../wal")

    def test_noPath(self) -> None:
        """An empty path is refused, and so is one that no system call would take."""
        self.assertEqual(
            self.refusal(AbsolutePath(), ""),
            'invalid value for parameter "x": "". A path is expected.',
        )
        self.assertIn('"a\0b"', self.refusal(AbsolutePath(), "a\0b"))


class StringListTests(ValuesTestCase):
    def test_commasAndBlanksSeparate(self) -> None:
        """Elements stand between commas; blanks around them do not count."""
        self.assertEqual(self.parse(StringList(), " a:b=c ,d\t, e"), ("a:b=c", "d", "e"))

    def test_doubleQuotesProtect(self) -> None:
        """In double quotes an element may hold a comma, a blank and, doubled, a double quote."""
        self.assertEqual(self.parse(StringList(), '"a,b c", "d""e"'), ("a,b c", 'd"e'))

    def test_quoteInsideAnElementIsNoQuote(self) -> None:
        """Only a double quote in front of an element protects; another is part of it, as in PostgreSQL."""
        self.assertEqual(self.parse(StringList(), 'a"b,c"'), ('a"b', 'c"'))

    def test_brokenListsAreRefused(self) -> None:
        """Empty lists, empty elements, open quotes and text behind a quote are refused."""
        for text in ["", " ", ",", "a,", ",a", "a,,b", "a b", '""', '"a', '"a"b']:
            self.assertIn(
                f'invalid value for parameter "x": "{text}". A list has', self.refusal(StringList(), text)
            )

    @given(st.lists(st.text(min_size=1), min_size=1))
    def test_quotedElementsComeBack(self, strings: list[str]) -> None:
        """Any strings, quoted and joined, are the elements of the list."""
        text = ", ".join(quoted_element(string) for string in strings)
        self.assertEqual(self.parse(StringList(), text), tuple(strings))

    @given(st.text(alphabet=st.one_of(st.sampled_from('", \ta'), st.characters())))
    def test_anyTextIsAListOrRefused(self, text: str) -> None:
        """Whatever stands for a list gives strings that are not empty, or a ConfigurationError."""
        try:
            strings = StringList().parse(assignment(text))
        except ConfigurationError:
            return
        self.assertTrue(all(strings))


class ComplaintTests(SynchronousTestCase):
    @given(st.text())
    def test_staysOnOneLine(self, text: str) -> None:
        """Whatever names and values hold, the message is one line of printable characters."""
        self.assertTrue(str(complaint(text, text, text)).isprintable())

    def test_messagePlaceAndHint(self) -> None:
        """Message, place and hint make one sentence and its remedy; a line break shows as its escape."""
        self.assertEqual(
            str(complaint('wrong "a\nb"', 'file "f"', "Do right.")), r'wrong "a\nb" in file "f". Do right.'
        )
        self.assertEqual(str(complaint("wrong", None)), "wrong")
