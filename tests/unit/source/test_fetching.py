"""Segments that are not in the directory, from somebody who has them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from fetching_helpers import ERROR, FetchingTestCase, Provider
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import globalLogPublisher

from walsender.errors import DataCorrupted
from walsender.source import AT_ONCE, Cursor, OpenSegment, SegmentUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable


def name(number: int, timeline: int = 1) -> str:
    """Return a segment's name."""
    return f"{timeline:08X}00000000{number:08X}"


class FetchTests(FetchingTestCase):
    """One segment."""

    def setUp(self) -> None:
        """Make WAL, and an archive of it."""
        super().setUp()
        self.maker = self.made()
        self.archive = Provider(self.maker.files())
        self.logged: list[str] = []
        self.hints: list[str | None] = []

        def observe(event: dict[str, Any]) -> None:
            if event["log_level"].name == "error":
                self.logged.append(event["complaint"])
                self.hints.append(event["hint"])

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def test_missingSegment(self) -> None:
        """It is fetched, and its file has no name any more."""
        source = self.fetching_source(self.maker, [self.archive])
        self.assertEqual(self.maker.image(3), self.content(source.open_segment(1, 3)))
        self.assertEqual([], self.left())
        self.assertNotIn(name(3), [path.name for path in self.path.iterdir()])

    def test_heldSegmentIsNotAskedFor(self) -> None:
        """What is in the directory is read from there, and nothing is fetched ahead of it."""
        source = self.fetching_source(self.maker, [self.archive])
        self.assertEqual(self.maker.image(8), self.content(source.open_segment(1, 8)))
        self.assertEqual([], self.archive.asked)

    def test_once(self) -> None:
        """However many ask, one after another or at once, it is fetched once."""
        source = self.fetching_source(self.maker, [self.archive])
        self.archive.holding = True
        openings = [source.open_segment(1, 3) for _ in range(3)]
        self.assertNoResult(openings[0])
        self.archive.answer(name(3))
        segments = [self.successResultOf(opening) for opening in openings]
        self.assertIs(segments[0], segments[2])
        self.assertIs(segments[0], self.successResultOf(source.open_segment(1, 3)))
        self.assertEqual(1, self.archive.asked.count(name(3)))

    def test_staysOpenThroughListings(self) -> None:
        """That its file has no name does not make it one that was replaced."""
        source = self.fetching_source(self.maker, [self.archive])
        segment = self.successResultOf(source.open_segment(1, 3))
        self.wait(6)
        self.assertFalse(segment.retired)

    def test_providersInOrder(self) -> None:
        """The next is asked when one does not have it or cannot tell."""
        broken, empty = Provider({}, "the tape"), Provider({}, "the cellar")
        broken.error = ERROR
        source = self.fetching_source(self.maker, [broken, empty, self.archive])
        self.assertEqual(self.maker.image(3), self.content(source.open_segment(1, 3)))
        self.assertEqual([name(3)], empty.asked[:1])

    def test_nobodyHasIt(self) -> None:
        """The error says who was asked and what each said, and the earliest position that is held."""
        broken, empty = Provider({}, "the tape"), Provider({}, "the cellar")
        broken.error = ERROR
        source = self.fetching_source(self.maker, [broken, empty])
        error = self.failureResultOf(source.open_segment(1, 3), SegmentUnavailable).value
        self.assertEqual(
            "It is not in the directory, and was not found elsewhere: the tape: its robot is on strike; "
            "the cellar does not have it.",
            error.sought,
        )
        self.assertEqual(8 << 20, error.earliest)
        self.assertEqual([], self.left())

    def test_nobodyIsAsked(self) -> None:
        """Without providers it is as if there was nobody to ask."""
        source = self.fetching_source(self.maker, [])
        error = self.failureResultOf(source.open_segment(1, 3), SegmentUnavailable).value
        self.assertEqual("", error.sought)

    def test_failureIsLoggedOnce(self) -> None:
        """As long as it stays the same; again when it had been well."""
        source = self.fetching_source(self.maker, [self.archive])
        for error in (ERROR, ERROR, None, ERROR):
            self.archive.error = error
            source.open_segment(1, 3).addErrback(lambda _: None)
            self.forget()
        self.assertEqual(["the archive: its robot is on strike"] * 2, self.logged)
        self.assertEqual(["Pay it."] * 2, self.hints)

    def test_damagedFiles(self) -> None:
        """What is not that segment, or not all of it, is refused, and nothing of it stays."""
        image = self.maker.image(3)
        page = bytearray(image)
        page[40 * 8192 : 41 * 8192] = bytes(8192)
        record = bytearray(image)
        record[-100_000] ^= 1
        foreign = self.made_elsewhere()
        for content, reason in [
            (image[:-8192], "has wrong size"),
            (image + b"\0", "has wrong size"),
            (b"", "has wrong size"),
            (page, "has no valid WAL at"),
            (record, "has no valid WAL at"),
            (self.maker.image(4), "has no valid WAL at"),
            (bytes(len(image)), "is no WAL segment"),
            (foreign, "is from a different database system"),
        ]:
            self.archive.files[name(3)] = bytes(content)
            source = self.fetching_source(self.maker, [self.archive])
            error = self.failureResultOf(source.open_segment(1, 3), SegmentUnavailable).value
            self.assertIn(reason, error.sought)
            self.assertEqual([], self.left())

    def made_elsewhere(self) -> bytes:
        """Return the same segment of another cluster."""
        from walsender.testing.wal_maker import WalMaker  # noqa: PLC0415

        maker = WalMaker(system_identifier=7300000000000000002)
        maker.fill_to(4 << 20, 20_000)
        return bytes(maker.image(3))

    def test_damageIsNoEnd(self) -> None:
        """Who comes after a damaged file is asked, too."""
        spoilt = Provider({name(3): bytes(1 << 20)}, "the cellar")
        source = self.fetching_source(self.maker, [spoilt, self.archive])
        self.assertEqual(self.maker.image(3), self.content(source.open_segment(1, 3)))

    def test_damagedHeldFileIsNotFetched(self) -> None:
        """What the directory holds is not replaced behind its administrator's back."""
        source = self.fetching_source(self.maker, [self.archive])
        spoilt = bytearray(self.maker.image(9))
        spoilt[24:32] = bytes(8)
        (self.path / name(9)).write_bytes(spoilt)
        self.failureResultOf(source.open_segment(1, 9), DataCorrupted)
        self.assertEqual([], self.archive.asked)

    def test_stop(self) -> None:
        """What is under way is given up, whoever waits is told, and nothing is left behind."""
        source = self.fetching_source(self.maker, [self.archive])
        self.archive.holding = True
        opening = source.open_segment(1, 3)
        assert source.fetching is not None
        self.successResultOf(source.fetching.stop())
        self.failureResultOf(opening, SegmentUnavailable)
        self.assertIn(name(3), self.archive.cancelled)
        self.assertEqual([], list(self.temporary.iterdir()))
        self.failureResultOf(source.open_segment(1, 3), SegmentUnavailable)
        self.assertEqual([], self.archive.waiting)


class TimelineTests(FetchingTestCase):
    """Which file is asked for where timelines meet."""

    SEGMENTS = 4

    def test_switchSegment(self) -> None:
        """Where a timeline ends its descendant's file is asked for, and then its own."""
        maker = self.made()
        maker.fork()
        maker.fill_to(7 << 20, 20_000)
        archive = Provider(maker.files())
        source = self.fetching_source(maker, [archive], held=6)
        image = maker.image(4)
        self.assertEqual(image, self.content(source.open_segment(1, 4)))
        self.assertEqual(name(4, 2), archive.asked[0])
        self.assertEqual(maker.image(3, 1), self.content(source.open_segment(2, 3)))
        own = Provider({name(4): bytes(maker.image(4, 1))})
        source = self.fetching_source(maker, [own], held=6)
        self.assertEqual(maker.image(4, 1), self.content(source.open_segment(1, 4)))
        self.assertEqual([name(4, 2), name(4)], own.asked[:2])


class AheadTests(FetchingTestCase):
    """What is fetched before somebody asks for it."""

    HELD = 16
    SEGMENTS = 17

    def setUp(self) -> None:
        """Make a source over an archive that answers when told to."""
        super().setUp()
        self.maker = self.made()
        self.archive = Provider(self.maker.files())
        self.archive.holding = True
        self.source = self.fetching_source(self.maker, [self.archive])
        self.cursor = Cursor(lambda number: self.source.open_segment(1, number), 1 << 20)

    def open(self, number: int) -> Deferred[None]:
        """Let the cursor open a segment."""
        return self.cursor.open(number << 20, (number + 1) << 20)

    def test_bounded(self) -> None:
        """The wanted segment first, then what comes next: not all of it, and not all at once."""
        self.open(3)
        self.assertEqual([name(number) for number in range(3, 3 + AT_ONCE)], self.archive.asked)
        while self.archive.waiting:
            self.archive.answer(self.archive.waiting[0])
            self.assertLessEqual(len(self.archive.waiting), AT_ONCE)
        self.assertEqual([name(number) for number in range(3, 12)], self.archive.asked)

    def test_order(self) -> None:
        """What is needed first is asked for first, in whatever order threads do things."""
        self.threads.holding = True
        self.open(3).addErrback(lambda _: None)
        for _ in range(20):
            self.threads.jobs.reverse()
            self.threads.run()
        self.threads.holding = False
        assert self.source.fetching is not None
        self.source.fetching.stop()
        self.assertEqual([name(number) for number in range(3, 3 + AT_ONCE)], self.archive.asked)

    def test_notBeyondWhatIsMissing(self) -> None:
        """Nothing that is held is fetched."""
        self.archive.holding = False
        self.open(13)
        self.assertEqual([name(number) for number in range(13, 16)], self.archive.asked)

    def test_fetchedAheadIsThere(self) -> None:
        """Who needs it then waits no more, and what comes next is fetched."""
        self.archive.holding = False
        self.successResultOf(self.open(3))
        self.archive.holding = True
        self.successResultOf(self.open(4))
        self.assertEqual(1, self.archive.asked.count(name(4)))
        self.assertEqual(name(12), self.archive.asked[-1])

    def test_wantedGoesFirst(self) -> None:
        """A segment that somebody waits for does not wait for those that nobody needs yet."""
        self.open(3)
        other = self.source.open_segment(1, 14)
        self.archive.answer(name(3))
        self.assertEqual(name(14), self.archive.asked[-1])
        self.archive.answer(name(14))
        self.successResultOf(other)

    def test_leavingReader(self) -> None:
        """When the only reader goes, all that was for it is given up, and nothing is kept."""
        opening = self.open(3)
        self.archive.answer(name(4))
        self.cursor.close()
        self.failureResultOf(opening, CancelledError)
        self.forget()
        self.assertEqual([], self.archive.waiting)
        self.assertEqual({name(3), name(5), name(6)}, set(self.archive.cancelled))
        self.archive.holding = False
        self.successResultOf(self.source.open_segment(1, 4))
        self.assertEqual(2, self.archive.asked.count(name(4)))

    def test_leavingReaderOfAnOpenSegment(self) -> None:
        """The same when it had got what it had asked for."""
        self.open(3)
        self.archive.answer(name(3))
        self.assertEqual(AT_ONCE, len(self.archive.waiting))
        self.cursor.close()
        self.forget()
        self.assertEqual([], self.archive.waiting)

    def test_readerThatLeavesInAThread(self) -> None:
        """Who sends in a thread may drop a segment there, where nothing of the reactor's may be used."""
        segment: list[OpenSegment] = []
        self.source.open_segment(1, 3).addCallback(segment.append)
        self.archive.answer(name(3))
        assert self.source.fetching is not None
        asked: list[tuple[int, Callable[[], object]]] = []
        self.source.fetching._call_soon = lambda function: asked.append((threading.get_ident(), function))
        leaving = threading.Thread(target=segment.clear)
        leaving.start()
        leaving.join()
        ((thread, review),) = asked
        self.assertNotEqual(threading.get_ident(), thread)
        self.assertEqual([], self.archive.cancelled)
        review()
        self.assertEqual([], self.archive.waiting)

    def test_otherReaderStays(self) -> None:
        """What another reader needs goes on."""
        self.open(3).addErrback(lambda _: None)
        other: Deferred[OpenSegment] = self.source.open_segment(1, 3)
        self.cursor.close()
        self.forget()
        self.assertEqual([], self.archive.cancelled)
        self.archive.answer(name(3))
        self.successResultOf(other)

    def test_whatNobodyHas(self) -> None:
        """That it could not be fetched ahead concerns nobody before it is needed."""
        del self.archive.files[name(4)]
        self.archive.holding = False
        self.successResultOf(self.open(3))
        self.failureResultOf(self.open(4), SegmentUnavailable)
        self.archive.files[name(4)] = bytes(self.maker.image(4))
        self.successResultOf(self.open(4))
