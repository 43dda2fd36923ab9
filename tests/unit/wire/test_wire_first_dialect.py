"""The commands of the first walsender, with the real sscanf beside."""

from __future__ import annotations

import ctypes
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import ProtocolViolation
from walsender.lsn import LSN
from walsender.wire import IdentifySystem, StartReplication, parse_first_dialect_query

ALL_ONES = 0xFFFFFFFF

# What follows the keyword, and both numbers; seen with glibc 2.36.
ACCEPTED = (
    (b" 0/1000000", 0, 0x1000000),
    (b"1/2", 1, 2),
    (b" \t\n\v\f\r1/2", 1, 2),
    (b" 1/ 2", 1, 2),
    (b" 1/\n\v2", 1, 2),
    (b" AbCdEf/00000000000000000001", 0xABCDEF, 1),
    (b" 0x1/0X2", 1, 2),
    (b" +1/+0x2", 1, 2),
    (b" -1/-0x2", ALL_ONES, 0xFFFFFFFE),
    (b" 0x/0X", 0, 0),
    (b" -0x/1", 0, 1),
    (b" 100000001/FFFFFFFFFFFFFFFF", 1, ALL_ONES),
    (b" -100000001/-10000000000000000", ALL_ONES, ALL_ONES),
    (b" FFFFFFFFFFFFFFFFF/-FFFFFFFFFFFFFFFFF", ALL_ONES, ALL_ONES),
    (b" -FFFFFFFFFFFFFFFF/0", 1, 0),
    (b" 1/2 TIMELINE 3", 1, 2),
    (b" 1/2/3", 1, 2),
    (b" 1/2xyz", 1, 2),
    (b" 1/0xg", 1, 0),
)
REFUSED = (
    *(b"", b" ", b" 1", b" 1/", b" 1/ ", b" /1", b" 1 /2", b" x1/2", b" 1/g", b" 1/x2", b" g/1", b" 1\\2"),
    *(b" +/2", b" -/1", b" - 1/2", b" +-1/1", b" 1/-", b" 0xg/1", b" 0 x1/1", b" 00x1/1", b" 0x0x1/1"),
    *(b" 0x 1/2", b" 0x-1/2", b" 1/\xa02", b"_SLOT x 1/2", b" PHYSICAL 1/2"),
)

_sscanf = ctypes.CDLL(None).sscanf


def scanned(text: bytes) -> LSN | None:
    """Return what the C library makes of a query."""
    log_id, offset = ctypes.c_uint(), ctypes.c_uint()
    count = _sscanf(
        ctypes.c_char_p(text),
        ctypes.c_char_p(b"START_REPLICATION %X/%X"),
        ctypes.byref(log_id),
        ctypes.byref(offset),
    )
    return LSN(log_id.value << 32 | offset.value) if count == 2 else None


def parsed(text: bytes) -> LSN | None:
    """Return what we make of it."""
    try:
        command = parse_first_dialect_query(text)
    except ProtocolViolation:
        return None
    assert isinstance(command, StartReplication)
    return command.start


class FirstDialectTests(SynchronousTestCase):
    """The whole grammar of February 2010."""

    def test_identifySystem(self) -> None:
        """Exactly that."""
        self.assertEqual(parse_first_dialect_query(b"IDENTIFY_SYSTEM"), IdentifySystem())

    def test_accepted(self) -> None:
        """All that scanf let through."""
        for text, log_id, offset in ACCEPTED:
            self.assertEqual(
                parse_first_dialect_query(b"START_REPLICATION" + text),
                StartReplication(LSN(log_id << 32 | offset)),
                text,
            )

    def test_refused(self) -> None:
        """All else is FATAL 08P01 and quoted."""
        others = (
            b"",
            b"IDENTIFY_SYSTEM ",
            b"IDENTIFY_SYSTEM;",
            b"identify_system",
            b" START_REPLICATION 1/2",
            b"\xff",
        )
        for text in (*others, *(b"START_REPLICATION" + rest for rest in REFUSED)):
            error = self.assertRaises(ProtocolViolation, parse_first_dialect_query, text)
            self.assertEqual(
                error.message, "invalid standby query string: " + text.decode("utf-8", "surrogateescape")
            )
            self.assertEqual((error.severity, error.sqlstate), ("FATAL", "08P01"))

    # What newer C libraries see otherwise, "0x" without a digit behind it, is in the tables only.
    @settings(deadline=None, max_examples=500)
    @given(
        st.lists(
            st.one_of(
                st.sampled_from(
                    (b"/", b" ", b"+", b"-", b"0", b"0x", b"0X1", b"f", b"F" * 8, b"F" * 16, b"1")
                ),
                st.sampled_from((b"\t", b"\v", b"\xa0", b"x", b"g", b"123456789", b"10000000000000000")),
            ),
            max_size=9,
        ).map(b"".join)
    )
    @example(b" 1/2")
    @example(b" -1/ 0X2")
    def test_asTheCLibrary(self, rest: bytes) -> None:
        """Near the grammar, sscanf and we agree."""
        text = b"START_REPLICATION" + re.sub(rb"0([xX])(?![0-9A-Fa-f])", rb"0\g<1>1", rest)
        self.assertEqual(parsed(text), scanned(text))

    @settings(deadline=None)
    @given(
        st.sampled_from((b"", b" ", b"\n ")),
        st.tuples(st.sampled_from((b"", b"+", b"-", b" -0x", b"0X")), st.integers(0, 1 << 70)),
        st.tuples(st.sampled_from((b"", b" ", b"-", b"0x", b" +0X")), st.integers(0, 1 << 70)),
        st.sampled_from((b"", b" ", b"g", b"/1")),
    )
    def test_numbersAsTheCLibrary(
        self, blank: bytes, first: tuple[bytes, int], second: tuple[bytes, int], tail: bytes
    ) -> None:
        """Also of numbers that do not fit."""
        halves = b"/".join(b"%b%X" % half for half in (first, second))
        text = b"START_REPLICATION" + blank + halves + tail
        self.assertEqual(parsed(text), scanned(text))
        self.assertIsNotNone(parsed(text))

    def test_longNumbersTakeLinearTime(self) -> None:
        """A megabyte of digits is a number, and one of blanks is not."""
        self.assertEqual(parsed(b"START_REPLICATION " + b"1" * 1_000_000 + b"/1"), LSN(ALL_ONES << 32 | 1))
        for rest in (b" " * 1_000_000, b"0" * 1_000_000, b"+" * 1_000_000):
            self.assertIsNone(parsed(b"START_REPLICATION" + rest))
