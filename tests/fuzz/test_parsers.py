"""The parsers of what clients send: any bytes, the seeds, and texts that would make a bad parser slow."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import parsers
from hypothesis import given, settings
from hypothesis import strategies as st
from parsers import TARGETS, run
from seeds import seeds
from twisted.trial.unittest import SynchronousTestCase

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS = (
    b"START_REPLICATION ", b"SLOT ", b"PHYSICAL ", b"0/1000000 ", b"TIMELINE ", b"BASE_BACKUP ", b"(",
    b")", b",", b"'", b'"', b"''", b" ", b"\\", b"-c", b"--", b"=", b"\0", b"user\0", b"replication\0",
    b"true\0", b"SET ", b"TO ", b"SELECT ", b"pg_catalog.", b"set_config(", b"SHOW ", b"1", b"4294967296",
    b"a", b"\xff", b"/*", b"\n", b";", b"Q\0\0\0\x06a\0", b"d\0\0\0\x05r", b"p\0\0\0\x04", b"\0\x03\0\0",
    b"wal_sender_timeout\0", b"1min",
)  # fmt: skip
texts = st.one_of(st.binary(max_size=200), st.lists(st.sampled_from(WORDS), max_size=30).map(b"".join))

MANY = 50_000  # what is quadratic takes many minutes with so many

# Repeated: what makes a parser try things twice, or never move on.
SLOW = (
    b"'", b"''", b'"', b'""', b"\\", b"\\\\", b"-", b"--", b"-c", b"-c ", b"-c=", b"-c= ", b"--=", b" ",
    b"\t\n", b"a", b"a ", b"a=", b"(", b"()", b"(a,", b"0/", b"/0", b"0", b"f/f", b",", b";", b"\0",
    b"a\0", b"\xff", b"_pq_.a\0\0", b"/*", b"SET a TO ", b"SHOW a ", b"-c a=\\ ", b"\x80\0\0\0",
    b"Q\0\0\0\4", b"d\0\0\0\4", b"\0\0\0\x08\4\xd2\x16\x2f",
)  # fmt: skip

BEFORE = (b"\0", b"\x09", b"\0START_REPLICATION ", b"\x09SET a TO ", b"\0\0\x03\0\0")


@contextmanager
def ending(seconds: int) -> Iterator[None]:
    """Fail what does not end: after so much processor time it never will."""

    def stuck(number: int, frame: object) -> None:
        raise AssertionError("it does not end")

    previous = signal.signal(signal.SIGPROF, stuck)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


class ParserTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=1000)
    @given(target=st.sampled_from(sorted(TARGETS)), data=texts)
    def test_anyBytes(self, target: str, data: bytes) -> None:
        """Any bytes are parsed, or refused by an error of ours."""
        run(target, data)

    def test_seedsCutOff(self) -> None:
        """So are the seeds, cut off anywhere."""
        for name, data in seeds().items():
            target = name.partition("/")[0]
            if target in TARGETS:
                for end in range(0, len(data) + 1, 1 + len(data) // 100):
                    run(target, data[:end])
                run(target, data)

    def test_everyParserEnds(self) -> None:
        """Whatever is repeated, it ends (PgBouncer's CVE-2026-107349: ``-c=`` made it loop)."""
        for target in sorted(TARGETS.keys() - {"regex", "hba", "ident", "userlist"}):  # the operator's
            with ending(60):
                for piece in SLOW:
                    for before in (
                        b"\0",
                        b"\x09",
                        b"\0START_REPLICATION ",
                        b"\x09SET a TO ",
                        b"\0\0\x03\0\0",
                    ):
                        run(target, before + piece * (MANY // len(piece)))

    def test_findsAreSeen(self) -> None:
        """An error of another kind, and what does not end, fail."""
        self.patch(parsers, "parse_options", lambda text: {}[text])
        self.assertRaises(KeyError, run, "startup_options", b"")
        with self.assertRaises(AssertionError), ending(1):
            while True:
                pass
