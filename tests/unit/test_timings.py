"""How long things take, by a clock of ours."""

from __future__ import annotations

import os
import tempfile
from itertools import count

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from walsender.timings import BUCKETS, Stopwatch, TimedFiles, Timings


class StopwatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Stop the time."""
        self.now = 100.0
        self.watch = Stopwatch(lambda: self.now)

    def test_histogram(self) -> None:
        """What took up to a bound counts below it and all higher ones."""
        for taken in (0.0001, 0.0002, 3600.0):
            self.now = 100.0
            began = self.watch.begin()
            self.now += taken
            self.watch.end(began)
        counts, total = self.watch.histogram()
        self.assertEqual(len(BUCKETS) + 1, len(counts))
        # A sum of floating point is a hair off: what is at a bound may be on either side.
        self.assertEqual([2, 2, 3], [counts[1], counts[-2], counts[-1]])
        self.assertAlmostEqual(3600.0003, total)

    def test_running(self) -> None:
        """The oldest of what is not over counts; nothing does when all is."""
        first = self.watch.begin()
        self.now += 1
        second = self.watch.begin()
        self.now += 1
        self.assertEqual(2, self.watch.running())
        self.watch.end(first)
        self.assertEqual(1, self.watch.running())
        self.watch.end(second)
        self.assertEqual(0, self.watch.running())


class TimingsTests(SynchronousTestCase):
    def test_work(self) -> None:
        """What a thread is asked counts as running until it has answered, well or not."""
        timings = Timings(work=Stopwatch(count().__next__))
        asked: list[Deferred[str]] = []

        def run(*args: object, **kwargs: object) -> Deferred[str]:
            asked.append(Deferred())
            return asked[-1]

        first, second = timings.timed(run)("a"), timings.timed(run)("b")
        self.assertGreater(timings.stuck(), 0)
        asked[0].callback("done")
        self.assertEqual("done", self.successResultOf(first))
        self.assertGreater(timings.stuck(), 0)
        asked[1].errback(Failure(OSError("no")))
        self.failureResultOf(second, OSError)
        self.assertEqual(0, timings.stuck())

    def test_files(self) -> None:
        """Each flush of a file counts, one that fails too."""
        timings = Timings()
        files = TimedFiles(timings.flush)
        with tempfile.TemporaryFile() as file:
            files.sync(file.fileno())
            files.sync_data(file.fileno())
        reading, writing = os.pipe()
        os.close(writing)
        self.assertRaises(OSError, files.sync, reading)
        os.close(reading)
        self.assertEqual(3, timings.flush.histogram()[0][-1])
        self.assertEqual(0, timings.stuck())
