"""History files that are not in the directory, from somebody who has them."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

from fetching_helpers import ERROR, FetchingTestCase, Provider
from source_helpers import MIB, Subscriber, Threads, put_durably

from walsender.errors import StartPositionRefused, WalFileMissing
from walsender.simulate.cluster import Cluster
from walsender.simulate.disk import SimulatedDisk
from walsender.simulate.files import FetchDirectories, WalFiles
from walsender.source import DirectorySource, Fetching, HistorySearch, RelayShelf, RelaySource, TimelineEnd
from walsender.testing.wal_maker import WalMaker

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

SECOND, THIRD = "00000002.history", "00000003.history"
SOUGHT = "is not in the directory, and was not found elsewhere: the archive does not have it."


class DirectoryTests(FetchingTestCase):
    """A directory that others fill."""

    SEGMENTS = 3

    def setUp(self) -> None:
        """Make WAL of three timelines, and an archive of the histories."""
        super().setUp()
        self.maker = self.made()
        self.switchpoints = []
        for _ in range(2):
            self.switchpoints.append(self.maker.position)
            self.maker.fork()
            self.maker.fill_to(self.maker.position + MIB, 20_000)
        self.archive = Provider(
            {name: content for name, content in self.maker.files().items() if "." in name}
        )

    def begun(self, *, held: int = 0, histories: tuple[int, ...] = ()) -> DirectorySource:
        """Return a started source."""
        return self.fetching_source(self.maker, [self.archive], held=held, histories=histories)

    def assertShown(self, source: DirectorySource) -> None:
        """Check that the newest timeline is shown, with its past, and that nothing was written."""
        self.assertEqual((3, self.maker.position), (source.timeline, source.flush_position))
        self.assertEqual(TimelineEnd(self.switchpoints[0], 2), source.end_of(1))
        self.assertEqual(self.maker.histories[3], source.history_file(3))
        self.assertEqual([], list(self.path.glob("*.history*")))
        self.assertEqual([], self.left())

    def test_itIsThereBeforeAnybodyIsToldAnything(self) -> None:
        """What is shown first has a past: no older timeline is refused, or taken for the newest."""
        for held in (0, 4):
            self.assertShown(self.begun(held=held))
            self.assertEqual([THIRD], self.archive.asked)
            self.archive.asked.clear()

    def test_nothingIsShownWhileItIsLookedFor(self) -> None:
        """Clients are asked to wait, as at any start."""
        self.archive.holding = True
        source = self.begun()
        self.assertFalse(source.ready)
        self.archive.answer(THIRD)
        self.assertShown(source)

    def test_stopWhileItIsLookedFor(self) -> None:
        """The command is given up, and nothing is left."""
        self.archive.holding = True
        source = self.begun()
        assert source.fetching is not None
        fetching, stopped = source.fetching.stop(), source.stop()
        self.successResultOf(fetching)
        self.successResultOf(stopped)
        self.assertEqual([THIRD], self.archive.cancelled)
        self.assertEqual([], list(self.temporary.iterdir()))

    def test_itStays(self) -> None:
        """Through every further listing, without being asked for again."""
        source = self.begun()
        self.wait(20)
        self.assertShown(source)
        self.assertEqual([THIRD], self.archive.asked)

    def test_whatNobodyHas(self) -> None:
        """It is as if there was nobody to ask, but that the errors say who was; the next older one may do."""
        del self.archive.files[THIRD]
        source = self.begun()
        self.assertEqual([THIRD, SECOND], self.archive.asked)
        self.assertEqual(2, source.timeline)
        error = self.assertRaises(StartPositionRefused, source.end_of, 3)
        self.assertEqual("requested timeline 3 is not in this server's history", error.message)
        self.assertEqual(f'File "pg_wal/{THIRD}" {SOUGHT}', error.detail)
        missing = self.assertRaises(WalFileMissing, source.history_file, 3)
        self.assertEqual(f'could not open file "pg_wal/{THIRD}": No such file or directory', missing.message)
        self.assertEqual(f"It {SOUGHT}", missing.detail)

    def test_withoutAnybodyToAsk(self) -> None:
        """Nothing is said of where it was looked for."""
        source = self.fetching_source(self.maker, [], held=4, histories=())
        self.assertEqual(3, source.timeline)
        self.assertIsNone(source.find_history())
        self.assertIsNone(self.assertRaises(StartPositionRefused, source.end_of, 1).detail)
        self.assertIsNone(self.assertRaises(WalFileMissing, source.history_file, 3).detail)

    def test_askedAgainWhileClientsAsk(self) -> None:
        """Not by itself; for clients after some seconds, and then they have it."""
        del self.archive.files[THIRD]
        source = self.begun(histories=(2,))
        subscriber = Subscriber(source)
        source.subscribe(subscriber)
        self.assertIsNone(source.find_history())
        self.wait(20)
        self.assertEqual([THIRD], self.archive.asked)
        self.assertIsNone(self.successResultOf(self.found(source)))
        self.assertIsNone(source.find_history(3))
        self.wait(4)
        self.assertIsNone(source.find_history())
        self.wait(2)
        self.archive.files[THIRD] = self.maker.histories[3]
        self.successResultOf(self.found(source))
        self.assertEqual([THIRD] * 3, self.archive.asked)
        self.assertEqual((3, self.maker.position), (source.timeline, source.flush_position))
        self.assertEqual([(3, self.maker.position)], subscriber.told)
        self.assertIsNone(source.find_history())

    def found(self, source: DirectorySource, timeline: int | None = None) -> Deferred[None]:
        """Return what a client waits for."""
        found = source.find_history(timeline)
        assert found is not None
        return found

    def test_severalClientsAtOnce(self) -> None:
        """It is asked for once, and all of them wait."""
        self.archive.holding = True
        source = self.begun(histories=(3,))
        waiting = [self.found(source, 2) for _ in range(3)]
        self.assertNoResult(waiting[2])
        self.archive.answer(SECOND)
        for found in waiting:
            self.successResultOf(found)
        self.assertEqual([SECOND], self.archive.asked)

    def test_anAncestorsForWhoAsks(self) -> None:
        """A standby asks for all that it lacks; nobody asks for that of a timeline that cannot be."""
        source = self.begun(histories=(3,))
        self.assertEqual([], self.archive.asked)
        self.successResultOf(self.found(source, 2))
        self.assertEqual(self.maker.histories[2], source.history_file(2))
        for timeline in (0, 1, 2, 3, 4, 2**31):
            self.assertIsNone(source.find_history(timeline))
        self.assertEqual([SECOND], self.archive.asked)

    def test_aTimelineThatComesLater(self) -> None:
        """Its history is looked for when it is seen; what is shown meanwhile stays."""
        maker = self.made()
        self.archive.files.clear()
        self.archive.holding = True
        source = self.fetching_source(maker, [self.archive], held=0)
        maker.fork()
        maker.fill_to(maker.position + MIB, 20_000)
        for name, content in maker.files().items():
            if "." in name:
                self.archive.files[name] = content
            else:
                (self.path / name).write_bytes(content)
        self.wait(10)
        self.assertEqual((1, [SECOND]), (source.timeline, self.archive.waiting))
        self.archive.answer(SECOND)
        self.assertEqual((2, maker.position), (source.timeline, source.flush_position))

    def test_theDirectorysOwnComesFirst(self) -> None:
        """When the file appears in the directory that is what is served."""
        source = self.begun()
        content = b"# restored by hand\n" + self.maker.histories[3]
        (self.path / THIRD).write_bytes(content)
        self.wait(6)
        self.assertEqual(content, source.history_file(3))

    def test_whatIsNotTheHistoryOfThisWal(self) -> None:
        """It is not used, and the error says why."""
        other = WalMaker()
        for _ in range(2):
            other.record(100)
            other.fork()
        at = self.maker.lsn(self.switchpoints[1] + 8192)[1]
        late = self.maker.histories[2] + f"2\t0/{at:X}\tlate\n".encode()
        for content, reason in [
            (b"", "invalid data in history file"),
            (self.maker.histories[3][:-1], "invalid data in history file"),
            (b"x" * (1 << 20 | 1), "is too long"),
            (self.maker.histories[2] + b"4\t0/400000\tno\n", "invalid data in history file"),
            (other.histories[3], "where its WAL does not"),
            (late, "where its WAL does not"),
        ]:
            self.archive.files = {THIRD: content}
            source = self.begun(held=4)
            error = self.assertRaises(StartPositionRefused, source.end_of, 1)
            assert error.detail is not None
            self.assertIn(reason, error.detail)
            self.assertEqual(3, source.timeline)

    def test_aProviderThatCannotTell(self) -> None:
        """It is complained of once, and nothing else happens."""
        self.archive.error = ERROR
        source = self.begun(held=4)
        self.assertEqual(3, source.timeline)
        error = self.assertRaises(WalFileMissing, source.history_file, 3)
        assert error.detail is not None
        self.assertIn("the archive: its robot is on strike", error.detail)


class RelayTests(FetchingTestCase):
    """A relay whose upstream did not have an old history file."""

    def setUp(self) -> None:
        """Make a relay that is on timeline 3 and has the newest history only."""
        super().setUp()
        self.cluster = Cluster()
        for _ in range(2):
            self.cluster.write(20_000)
            self.cluster.promote(0)
            self.cluster.write(20_000)
        self.disk = SimulatedDisk(random.Random(0))
        self.addCleanup(self.disk.close)
        self.disk.make_directory("/wal")
        files = WalFiles(self.disk)
        self.relay = RelaySource(Threads(), Threads(), files, "/wal")
        put = partial(put_durably, self.disk)
        put("/wal", "000000030000000000000001.partial", bytes(self.cluster.segment(3, 1)))
        put("/wal", THIRD, self.cluster.history_file(3) or b"")
        self.successResultOf(self.relay.start())
        scratch = FetchDirectories(self.disk, "/fetched")
        shelf = RelayShelf(Threads(), Threads(), files, "/wal", self.relay, scratch=scratch)
        self.archive = Provider({})
        self.archive.put = put
        fetching = Fetching(partial(self.clock.callLater, 0), shelf, self.relay, [self.archive])
        self.relay.histories = HistorySearch(self.clock, fetching, self.relay)

    def test_fromTheArchive(self) -> None:
        """It is kept as if the upstream had given it: durably, and found at the next start."""
        content = self.cluster.history_file(2) or b""
        self.archive.files[SECOND] = content
        self.assertRaises(WalFileMissing, self.relay.history_file, 2)
        found = self.relay.find_history(2)
        assert found is not None
        self.successResultOf(found)
        self.assertEqual(content, self.relay.history_file(2))
        self.assertEqual(content, self.relay.known_history(2))
        self.assertEqual(content, bytes(self.disk.file(f"/wal/{SECOND}").platter))
        self.assertIsNone(self.relay.find_history(2))

    def test_whatTheUpstreamHasGivenMeanwhile(self) -> None:
        """It is what is kept and served, whatever words the archive has."""
        content = self.cluster.history_file(2) or b""
        self.successResultOf(self.relay.keep_history(2, content))
        self.archive.files[SECOND] = b"# from the archive\n" + content
        found = self.relay.find_history(2)
        assert found is not None
        self.successResultOf(found)
        self.assertEqual(content, self.relay.history_file(2))
        self.assertEqual(content, bytes(self.disk.file(f"/wal/{SECOND}").platter))

    def test_anothersIsNotKept(self) -> None:
        """It must say what the newest history says."""
        self.archive.files[SECOND] = b"1\t0/1000100\tsomebody else's\n"
        found = self.relay.find_history(2)
        assert found is not None
        self.successResultOf(found)
        error = self.assertRaises(WalFileMissing, self.relay.history_file, 2)
        assert error.detail is not None
        self.assertIn(f'does not agree with "pg_wal/{THIRD}"', error.detail)
        self.assertNotIn(SECOND, self.disk.names("/wal"))
