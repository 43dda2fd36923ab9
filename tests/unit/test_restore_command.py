"""``restore_command``: what is run, what its exit status means, and how it is ended."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import ConfigurationError, WalFileError
from walsender.restore_command import RestoreCommand, fill_in

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "000000010000000000000001"


class FillInTests(SynchronousTestCase):
    """Placeholders."""

    def test_placeholders(self) -> None:
        """All of PostgreSQL's, and in a value nothing is replaced again."""
        self.assertEqual(
            f"get {NAME} to '/x/%f' keep {'0' * 24} 100%",
            fill_in("get %f to '%p' keep %r 100%%", NAME, "/x/%f"),
        )

    def test_unknown(self) -> None:
        """Others are refused, in PostgreSQL's words."""
        for command, reason in [
            ("get %x", 'String contains unexpected placeholder "%x".'),
            ("get %", 'String ends unexpectedly after escape character "%".'),
        ]:
            error = self.assertRaises(ConfigurationError, RestoreCommand, Clock(), maybeDeferred, command)
            self.assertIn('invalid value for parameter "restore_command"', error.message)
            self.assertIn(reason, error.message)


class RunTests(SynchronousTestCase):
    """Commands that a real shell runs."""

    def setUp(self) -> None:
        """Make an archive with one file, and a place to copy to."""
        directory = tempfile.TemporaryDirectory(prefix="walsender-test-")
        self.addCleanup(directory.cleanup)
        self.archive = Path(directory.name, "archive")
        self.target = Path(directory.name, "a place")
        self.archive.mkdir()
        self.target.mkdir()
        (self.archive / NAME).write_bytes(b"wal")
        self.clock = Clock()

    def fetch(self, command: str, run: Callable[..., Deferred[Any]] = maybeDeferred) -> Deferred[bool]:
        """Run a command."""
        return RestoreCommand(self.clock, run, command).fetch(NAME, str(self.target))

    def test_copied(self) -> None:
        """Exit status 0: the file is there."""
        self.assertIs(True, self.successResultOf(self.fetch(f'cp "{self.archive}/%f" "%p"')))
        self.assertEqual(b"wal", (self.target / NAME).read_bytes())

    def test_nothingElseNeedBeWritable(self) -> None:
        """A container may have no directory for temporary files."""
        self.patch(tempfile, "tempdir", str(self.archive / "nowhere"))
        self.assertIs(True, self.successResultOf(self.fetch(f'cp "{self.archive}/%f" "%p"')))
        self.assertEqual([NAME], [path.name for path in self.target.iterdir()])

    def test_noRoomForWhatItSays(self) -> None:
        """It is told as any failure is."""
        self.target.rmdir()
        failure = self.failureResultOf(self.fetch("true"), WalFileError)
        self.assertEqual("could not run restore_command: No such file or directory", failure.value.message)

    def test_notThere(self) -> None:
        """Up to 125 the archive does not have it."""
        for status in (1, 125):
            self.assertIs(False, self.successResultOf(self.fetch(f"exit {status}")))

    def test_broken(self) -> None:
        """Above that, and by a signal, it is something else, and the command's last words are told."""
        for command, reason in [
            ("exit 126", "failed with exit status 126"),
            ("echo one; echo two >&2; exit 255", "failed with exit status 255: two"),
            ("no-such-command-anywhere", "failed with exit status 127: "),
            ("kill -9 $$", "was terminated by signal 9"),
        ]:
            error = self.failureResultOf(self.fetch(command), WalFileError).value
            self.assertIn(f"restore_command {reason}", error.message)

    def test_surroundings(self) -> None:
        """It runs in the directory that it writes to, reads nothing, and has a process group of its own."""
        command = "pwd > out; cat >> out; cut -d ' ' -f 5 /proc/$$/stat >> out"
        self.assertIs(True, self.successResultOf(self.fetch(command)))
        where, group = (self.target / "out").read_text().split("\n")[:2]
        self.assertEqual(str(self.target), where)
        self.assertNotEqual(os.getpgrp(), int(group))

    def start_in_thread(self, command: str) -> tuple[Deferred[bool], threading.Thread]:
        """Run a command in a thread that tells of its end only after `finish`."""
        threads: list[threading.Thread] = []

        def run(function: Callable[[], object]) -> Deferred[Any]:
            self.result: Deferred[Any] = Deferred()

            def work() -> None:
                try:
                    self.outcome: object = function()
                except Exception:  # noqa: BLE001 -- the test is told
                    self.outcome = Failure()

            threads.append(threading.Thread(target=work))
            threads[0].start()
            return self.result

        return self.fetch(command, run), threads[0]

    def finish(self, thread: threading.Thread) -> None:
        """Wait for the thread, and tell."""
        thread.join(30)
        self.assertFalse(thread.is_alive())
        self.result.callback(self.outcome)

    def wait_for(self, name: str) -> None:
        """Wait until the command has made a file (a pipe would be no sign of how far a shell has got)."""
        for _ in range(3000):
            if (self.target / name).exists():
                return
            threading.Event().wait(0.01)
        self.fail("the command does not begin")

    def test_cancelled(self) -> None:
        """All of it gets SIGTERM, and that it is given up is told when it has ended, not before."""
        fetching, thread = self.start_in_thread(
            "(trap 'touch child; exit' TERM; touch up; sleep 60 & wait) & wait"
        )
        self.wait_for("up")
        fetching.cancel()
        self.assertNoResult(fetching)
        self.finish(thread)
        self.failureResultOf(fetching, CancelledError)
        self.wait_for("child")
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_stubborn(self) -> None:
        """What does not care for SIGTERM is killed."""
        fetching, thread = self.start_in_thread("trap '' TERM; touch up; sleep 60; sleep 60")
        self.wait_for("up")
        fetching.cancel()
        self.clock.advance(1)
        self.finish(thread)
        self.failureResultOf(fetching, CancelledError)
        self.assertEqual(-signal.SIGKILL, self.outcome[0])  # type: ignore[index]

    def test_cancelledBeforeItBegan(self) -> None:
        """A command whose turn in the threads comes later is not run at all."""
        waiting: Deferred[Any] = Deferred()
        jobs: list[Callable[[], object]] = []

        def run(function: Callable[[], object]) -> Deferred[Any]:
            jobs.append(function)
            return waiting

        fetching = self.fetch("touch up", run)
        fetching.cancel()
        waiting.callback(jobs[0]())
        self.failureResultOf(fetching, CancelledError)
        self.assertEqual([], list(self.target.iterdir()))
