"""A status update that says what the last one said: told by its bytes, and never mistaken."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walsender.lsn import LSN
from walsender.wire import CopyData, NetworkLayout, StandbyStatusUpdate
from walsender.wire.repeated_status import repeated_at_us, status_start

LAYOUT = NetworkLayout()
STATUS = StandbyStatusUpdate(LSN(0x3000060), LSN(0x3000060), LSN(0x3000000), 1000)


def in_stream(status: StandbyStatusUpdate) -> bytes:
    """Return the CopyData that carries *status*."""
    return CopyData(LAYOUT.encode(status)).encode()


class RepeatedStatusTests(SynchronousTestCase):
    """What is given to `repeated_at_us`."""

    def test_sameAgain(self) -> None:
        """The same positions at another time are the same report, and its time is returned."""
        for sent_at_us in (1000, 0, -1, (1 << 63) - 1):
            again = replace(STATUS, sent_at_us=sent_at_us)
            self.assertEqual(sent_at_us, repeated_at_us(status_start(STATUS), in_stream(again)))

    def test_anotherPosition(self) -> None:
        """Any other position is another report."""
        for name in ("write_lsn", "flush_lsn", "replay_lsn"):
            other = replace(STATUS, **{name: LSN(0x3000061)})
            self.assertIsNone(repeated_at_us(status_start(STATUS), in_stream(other)))

    def test_asks(self) -> None:
        """Who asks for a reply must get one."""
        asking = in_stream(replace(STATUS, reply_requested=True))
        self.assertIsNone(repeated_at_us(status_start(STATUS), asking))

    @given(st.integers(0, 100))
    def test_notWhole(self, size: int) -> None:
        """A part of it, or it and a part of what follows, is not one report."""
        stream = in_stream(STATUS) * 3
        expected = 1000 if size == len(in_stream(STATUS)) else None
        self.assertEqual(expected, repeated_at_us(status_start(STATUS), stream[:size]))

    @given(st.binary(max_size=60))
    def test_onlyWhatDecodesToIt(self, data: bytes) -> None:
        """What is told to be the report is what the decoder finds in it."""
        whole = status_start(STATUS) + data
        sent_at_us = repeated_at_us(status_start(STATUS), whole)
        if sent_at_us is not None:
            self.assertEqual(replace(STATUS, sent_at_us=sent_at_us), LAYOUT.decode_standby(whole[5:]))
