"""What is inside CopyData while WAL streams, in both layouts."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from wire_strategies import octets

from walsender.errors import InvalidMessage, WalsenderError
from walsender.lsn import LSN
from walsender.wire import (
    HotStandbyFeedback,
    MessageLayout,
    NetworkLayout,
    PrimaryKeepalive,
    RawLayout,
    SilentViolation,
    StandbyMessage,
    StandbyStatusUpdate,
    UnknownStandbyMessage,
    WalsenderMessage,
    XLogData,
    from_pg_timestamp,
    to_pg_timestamp,
)

LAYOUTS: tuple[MessageLayout, ...] = (
    NetworkLayout(),
    NetworkLayout(catalog_xmin=False),
    RawLayout("little"),
    RawLayout("big"),
    RawLayout("little", start_only=True),
    RawLayout("big", start_only=True),
)

positions = st.integers(0, (1 << 64) - 1).map(LSN)
times = st.integers(-(1 << 63), (1 << 63) - 1)
xids = st.integers(0, (1 << 32) - 1)
standby_messages: st.SearchStrategy[StandbyMessage] = st.one_of(
    st.builds(StandbyStatusUpdate, positions, positions, positions, times, st.booleans()),
    st.builds(HotStandbyFeedback, times, xids, xids, xids, xids),
)
walsender_messages: st.SearchStrategy[WalsenderMessage] = st.one_of(
    st.builds(XLogData, positions, positions, times, octets(max_size=20)),
    st.builds(PrimaryKeepalive, positions, times, st.booleans()),
)


def as_carried(message: StandbyMessage | WalsenderMessage, layout: MessageLayout) -> object:
    """Return what of *message* a layout can carry."""
    raw = isinstance(layout, RawLayout)
    match message:
        case StandbyStatusUpdate(write, flush, replay, time) if raw:
            return StandbyStatusUpdate(write, flush, replay, time)
        case PrimaryKeepalive(end, time) if raw:
            return PrimaryKeepalive(end, time)
        case HotStandbyFeedback(time, xmin, epoch) if raw or layout == NetworkLayout(catalog_xmin=False):
            return HotStandbyFeedback(time, xmin, epoch)
        case XLogData(start, _, _, data) if isinstance(layout, RawLayout) and layout.start_only:
            return XLogData(start, LSN(0), 0, data)
    return message


class LayoutTests(SynchronousTestCase):
    """Both layouts."""

    @given(standby_messages, st.sampled_from(LAYOUTS))
    def test_standbyRoundTrip(self, message: StandbyMessage, layout: MessageLayout) -> None:
        """What a standby says comes back, as far as the layout carries it."""
        self.assertEqual(layout.decode_standby(layout.encode(message)), as_carried(message, layout))

    @given(walsender_messages, st.sampled_from(LAYOUTS))
    def test_walsenderRoundTrip(self, message: WalsenderMessage, layout: MessageLayout) -> None:
        """What a walsender says comes back, as far as the layout carries it."""
        self.assertEqual(layout.decode_walsender(layout.encode(message)), as_carried(message, layout))

    @given(walsender_messages, st.integers(0, 60))
    def test_walIn(self, message: WalsenderMessage, length: int) -> None:
        """Where WAL begins, and the WAL; nothing else has any, nor has a message that is cut off."""
        layout = NetworkLayout()
        body = layout.encode(message)
        expected = (message.start, bytes(message.data)) if isinstance(message, XLogData) else None
        found = layout.wal_in(body)
        self.assertEqual(expected, found and (found[0], bytes(found[1])))
        with contextlib.suppress(WalsenderError):
            layout.decode_walsender(body[:length])
            return
        self.assertIsNone(layout.wal_in(body[:length]))

    @given(st.sampled_from((b"", b"r", b"h", b"w", b"k")), octets(max_size=50), st.sampled_from(LAYOUTS))
    def test_anyBytesGiveAMessageOrATypedError(self, tag: bytes, body: bytes, layout: MessageLayout) -> None:
        """Garbage is an error of ours, never another exception."""
        for decode in (layout.decode_standby, layout.decode_walsender):
            with contextlib.suppress(WalsenderError):
                decode(tag + body)

    @given(st.sampled_from(LAYOUTS), standby_messages, octets(min_size=1, max_size=8))
    def test_extraBytesAreIgnored(self, layout: MessageLayout, message: StandbyMessage, extra: bytes) -> None:
        """PostgreSQL reads the fields that it knows, seen on 15, 16 and 18."""
        data = layout.encode(message)
        self.assertEqual(layout.decode_standby(data + extra), layout.decode_standby(data))

    def test_noData(self) -> None:
        """An empty CopyData: ERROR 08P01, which ends the stream only."""
        for layout in LAYOUTS:
            for decode in (layout.decode_standby, layout.decode_walsender):
                error = self.assertRaises(InvalidMessage, decode, b"")
                self.assertEqual(error.message, "no data left in message")
                self.assertEqual((error.severity, error.sqlstate), ("ERROR", "08P01"))

    def test_cutOffMessages(self) -> None:
        """Anything shorter than the layout is refused."""
        messages = (StandbyStatusUpdate(LSN(1), LSN(2), LSN(3), 4), HotStandbyFeedback(1, 2, 3, 4, 5))
        for layout in LAYOUTS:
            for message in messages:
                data = layout.encode(message)
                for size in range(1, len(data) - 1):
                    error = self.assertRaises(InvalidMessage, layout.decode_standby, data[:size])
                    self.assertEqual(error.message, "insufficient data left in message")

    def test_cutOffMessagesOfAWalsender(self) -> None:
        """A client sees the same errors."""
        for layout in LAYOUTS:
            for message in (XLogData(LSN(1), LSN(2), 3, b""), PrimaryKeepalive(LSN(1), 2)):
                data = layout.encode(message)
                error = self.assertRaises(InvalidMessage, layout.decode_walsender, data[:-1])
                self.assertEqual(error.message, "insufficient data left in message")

    def test_anUnknownTagClosesSilently(self) -> None:
        """PostgreSQL writes it to the log and goes."""
        for layout in LAYOUTS:
            for decode in (layout.decode_standby, layout.decode_walsender):
                error = self.assertRaises(UnknownStandbyMessage, decode, b"x")
                self.assertIsInstance(error, SilentViolation)
                self.assertEqual(error.message, 'unexpected message type "x"')


class NetworkLayoutTests(SynchronousTestCase):
    """PostgreSQL 9.3 and later."""

    def test_keepalive(self) -> None:
        """One that PostgreSQL 18 sent at 2026-11-22 17:54:10.752 UTC."""
        data = bytes.fromhex("6b 000000000406c620 000303dfeee5af02 00")
        message = PrimaryKeepalive(LSN.parse("0/406C620"), 0x000303DFEEE5AF02, reply_requested=False)
        self.assertEqual(NetworkLayout().decode_walsender(data), message)
        self.assertEqual(NetworkLayout().encode(message), data)
        self.assertEqual(int(from_pg_timestamp(message.sent_at_us)), 1795370050)

    def test_data(self) -> None:
        """Tag, start, end, time, WAL."""
        data = bytes.fromhex("77 0000000001000000 00000000016ed508 fffffffffffffffe d118")
        message = XLogData(LSN.parse("0/1000000"), LSN.parse("0/16ED508"), -2, b"\xd1\x18")
        self.assertEqual(NetworkLayout().decode_walsender(data), message)
        self.assertEqual(NetworkLayout().encode(message), data)
        self.assertEqual(
            NetworkLayout().data_header(message.start, message.wal_end, message.sent_at_us), data[:25]
        )

    def test_status(self) -> None:
        """Tag, write, flush, replay, time, flag."""
        data = bytes.fromhex("72 0000000100000002 0000000300000004 0000000500000006 0000000000000007 01")
        message = StandbyStatusUpdate(LSN(1 << 32 | 2), LSN(3 << 32 | 4), LSN(5 << 32 | 6), 7, True)
        self.assertEqual(NetworkLayout().decode_standby(data), message)
        self.assertEqual(NetworkLayout().encode(message), data)

    def test_anyFlagButZeroIsTrue(self) -> None:
        """PostgreSQL 18 answers a 2, too."""
        message = NetworkLayout().decode_standby(b"r" + bytes(32) + b"\2")
        self.assertEqual(message, StandbyStatusUpdate(LSN(0), LSN(0), LSN(0), 0, reply_requested=True))

    def test_aStatusWithoutItsFlag(self) -> None:
        """The flag is read as a byte, so it is missed in other words, seen on 15 and 18."""
        error = self.assertRaises(InvalidMessage, NetworkLayout().decode_standby, b"r" + bytes(32))
        self.assertEqual(error.message, "no data left in message")

    def test_feedback(self) -> None:
        """Tag, time, xmin, epoch; from 10 on catalog xmin and epoch."""
        data = bytes.fromhex("68 0000000000000001 000002f3 00000004 00000005 00000006")
        message = HotStandbyFeedback(1, 755, 4, 5, 6)
        self.assertEqual(NetworkLayout().decode_standby(data), message)
        self.assertEqual(NetworkLayout().encode(message), data)

    def test_feedbackBefore10(self) -> None:
        """17 bytes then, which 10 and later refuse."""
        data = bytes.fromhex("68 0000000000000001 000002f3 00000004")
        layout = NetworkLayout(catalog_xmin=False)
        self.assertEqual(layout.decode_standby(data), HotStandbyFeedback(1, 755, 4))
        self.assertEqual(layout.encode(HotStandbyFeedback(1, 755, 4)), data)
        self.assertRaises(InvalidMessage, NetworkLayout().decode_standby, data)


class RawLayoutTests(SynchronousTestCase):
    """PostgreSQL 9.0 to 9.2, and what was before."""

    def test_theFirstWalsender(self) -> None:
        """Tag, log id, offset, WAL: 8 bytes in the server's byte order, the high half first in both."""
        message = XLogData(LSN.parse("1/2"), LSN(0), 0, b"WAL")
        for byte_order, data in (
            ("little", "77 01000000 02000000 57414c"),
            ("big", "77 00000001 00000002 57414c"),
        ):
            layout = RawLayout("little" if byte_order == "little" else "big", start_only=True)
            self.assertEqual(layout.encode(message), bytes.fromhex(data))
            self.assertEqual(layout.decode_walsender(bytes.fromhex(data)), message)

    def test_dataOf90(self) -> None:
        """Tag, start, end, time, WAL: a header of 24 bytes behind the tag."""
        data = bytes.fromhex("77 01000000 02000000 03000000 04000000 0500000000000000 57")
        message = XLogData(LSN.parse("1/2"), LSN.parse("3/4"), 5, b"W")
        self.assertEqual(RawLayout("little").encode(message), data)
        self.assertEqual(RawLayout("little").data_header(message.start, message.wal_end, 5), data[:25])

    def test_keepaliveOf92(self) -> None:
        """Tag, end, time; no flag: 17 bytes."""
        data = bytes.fromhex("6b 01000000 02000000 0500000000000000")
        self.assertEqual(RawLayout("little").encode(PrimaryKeepalive(LSN.parse("1/2"), 5)), data)

    def test_statusOf91(self) -> None:
        """Tag, write, flush, replay, time; no flag: 33 bytes."""
        data = bytes.fromhex("72 00000001 00000002 00000003 00000004 00000005 00000006 0000000000000007")
        message = StandbyStatusUpdate(LSN.parse("1/2"), LSN.parse("3/4"), LSN.parse("5/6"), 7)
        self.assertEqual(RawLayout("big").encode(message), data)
        self.assertEqual(RawLayout("big").decode_standby(data), message)

    def test_feedbackOf91(self) -> None:
        """Tag, xmin, epoch, time: 17 bytes in another order than later."""
        data = bytes.fromhex("68 01000000 02000000 0300000000000000")
        message = HotStandbyFeedback(3, 1, 2)
        self.assertEqual(RawLayout("little").encode(message), data)
        self.assertEqual(RawLayout("little").decode_standby(data), message)


class TimestampTests(SynchronousTestCase):
    """PostgreSQL's clock."""

    def test_epoch(self) -> None:
        """It begins with the year 2000, in UTC."""
        self.assertEqual(to_pg_timestamp(946684800), 0)
        self.assertEqual(to_pg_timestamp(0), -946684800000000)

    @given(st.integers(-(1 << 50), 1 << 50))
    def test_microsecondsComeBack(self, microseconds: int) -> None:
        """For some decades around now a float has room for microseconds."""
        self.assertEqual(to_pg_timestamp(from_pg_timestamp(microseconds)), microseconds)
