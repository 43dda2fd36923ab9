"""What systemd and the process title are told, on a real socket and a clock of ours."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from walsender.supervision import ProcessTitle, ServiceManager, Supervisor


class ManagerTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a place for sockets."""
        self.directory = tempfile.mkdtemp()
        self.addCleanup(os.rmdir, self.directory)

    def listen(self, address: str) -> socket.socket:
        """Return what hears datagrams at *address*."""
        heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.addCleanup(heard.close)
        heard.bind(address)
        if address[0] == "/":
            self.addCleanup(Path(address).unlink, missing_ok=True)
        return heard

    def manager(self, **environment: str) -> ServiceManager | None:
        """Return who is named, closed at the end."""
        found = ServiceManager.from_environment(environment)
        self.assertEqual({}, {name: value for name, value in environment.items() if name != "HOME"})
        if found is not None:
            self.addCleanup(found.close)
        return found

    def test_pathAndAbstractName(self) -> None:
        """Both kinds of names lead to the socket; lines are one datagram."""
        abstract = f"walsender-test-{os.getpid()}-{id(self)}"
        for address, name in (
            (f"{self.directory}/s", f"{self.directory}/s"),
            (f"\0{abstract}", f"@{abstract}"),
        ):
            heard = self.listen(address)
            manager = self.manager(NOTIFY_SOCKET=name)
            assert manager is not None
            manager.tell("READY=1", "STATUS=good")
            self.assertEqual(b"READY=1\nSTATUS=good", heard.recv(4096))

    def test_nobody(self) -> None:
        """Without a name, or with one of another kind, there is nobody to tell."""
        self.assertIsNone(self.manager())
        self.assertIsNone(self.manager(NOTIFY_SOCKET="vsock:2:1234"))

    def test_watchdog(self) -> None:
        """The watchdog's time is ours if it is for this process."""
        for variables, expected in (
            ({"WATCHDOG_USEC": "2500000"}, 2.5),
            ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": str(os.getpid())}, 2.5),
            ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "1"}, 0.0),
            ({"WATCHDOG_USEC": "x"}, 0.0),
            ({}, 0.0),
        ):
            manager = self.manager(NOTIFY_SOCKET="@x", **variables)
            assert manager is not None
            self.assertEqual(expected, manager.watchdog, variables)

    def test_goneOrBusy(self) -> None:
        """Who does not hear is not waited for; it is said once, and again after it has heard in between."""
        events: list[object] = []
        observe = lambda event: events.append(event["log_format"])  # noqa: E731
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        manager = self.manager(NOTIFY_SOCKET=f"{self.directory}/s")
        assert manager is not None
        manager.tell("READY=1")
        manager.tell("READY=1")
        self.assertEqual(1, len(events))
        heard = self.listen(f"{self.directory}/s")
        while len(events) == 1:  # until its queue is full
            manager.tell("WATCHDOG=1")
        while True:
            try:
                self.assertEqual(b"WATCHDOG=1", heard.recv(4096))
            except BlockingIOError:
                break


class Told(ServiceManager):
    """Remembers what it is told."""

    def __init__(self, watchdog: float = 0.0) -> None:
        self.watchdog = watchdog
        self.lines: list[str] = []

    def tell(self, *lines: str) -> None:
        """Remember."""
        self.lines += lines

    def take(self) -> list[str]:
        """Return what was told since."""
        lines, self.lines = self.lines, []
        return lines


class SupervisorTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a service that does something."""
        self.clock = Clock()
        self.activity = "1 standby"
        self.stuck = 0.0
        self.titles: list[str] = []
        self.shows = True
        self.manager = Told()

    def supervisor(self, manager: ServiceManager | None, *, title: bool = False) -> Supervisor:
        """Return one that has begun."""
        supervisor = Supervisor(
            self.clock,
            lambda: self.activity,
            lambda: self.stuck,
            manager,
            ProcessTitle(self.titles.append, "main") if title else None,
            lambda: self.shows,
        )
        supervisor.start()
        return supervisor

    def test_life(self) -> None:
        """Ready, reload and end are told with the status; a daemon tells who it is."""
        supervisor = self.supervisor(self.manager)
        self.assertEqual(["STATUS=1 standby"], self.manager.take())
        supervisor.reloading()
        supervisor.reloaded()
        self.assertEqual([], self.manager.take(), "ready before it was")
        supervisor.ready()
        self.assertEqual(["READY=1", f"MAINPID={os.getpid()}"], self.manager.take())
        supervisor.reloading()
        reloading, time = self.manager.take()
        self.assertEqual("RELOADING=1", reloading)
        self.assertRegex(time, r"^MONOTONIC_USEC=\d+$")
        supervisor.reloaded()
        self.assertEqual(["READY=1"], self.manager.take())
        self.activity = "shutting down"
        supervisor.stopping()
        self.assertEqual(["STOPPING=1", "STATUS=shutting down"], self.manager.take())
        supervisor.reloaded()
        self.assertEqual([], self.manager.take(), "ready behind the end")
        supervisor.stop()
        supervisor.stop()
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_status(self) -> None:
        """A status is told when it is another one, and not more often than every ten seconds."""
        self.supervisor(self.manager)
        self.manager.take()
        for number in range(25):
            self.activity = f"streaming {number}"
            self.clock.advance(1)
        self.assertEqual(["STATUS=streaming 9", "STATUS=streaming 19"], self.manager.take())
        self.clock.pump([1] * 30)
        self.assertEqual(["STATUS=streaming 24"], self.manager.take())

    def test_title(self) -> None:
        """The title follows once a second, when it changes, and stays when the setting is off."""
        self.supervisor(None, title=True)
        self.clock.pump([1] * 3)
        self.activity = "2 standbys"
        self.clock.advance(0.9)
        self.assertEqual(["walsender: main: 1 standby"], self.titles)
        self.clock.advance(0.1)
        self.assertEqual("walsender: main: 2 standbys", self.titles[-1])
        self.shows = False
        self.activity = "3 standbys"
        self.clock.pump([1] * 3)
        self.assertEqual(2, len(self.titles))

    def test_titleWithoutName(self) -> None:
        """Without a name of the cluster the title begins with the program's."""
        ProcessTitle(self.titles.append).show("starting")
        self.assertEqual(["walsender: starting"], self.titles)

    def test_nobodyToTell(self) -> None:
        """Where there is nobody to tell, no timer wakes the process."""
        self.supervisor(None)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_watchdog(self) -> None:
        """A sign of life comes at least at every half of the watchdog's time, whatever that is."""
        for watchdog in (0.2, 3.0, 120.0):
            manager = Told(watchdog)
            supervisor = self.supervisor(manager)
            last = self.clock.seconds()
            signs = 0
            while signs < 10:
                self.clock.advance(min(1.0, watchdog / 4))
                self.assertLessEqual(self.clock.seconds() - last, watchdog / 2)
                if "WATCHDOG=1" in manager.take():
                    last = self.clock.seconds()
                    signs += 1
            supervisor.stop()

    def test_hungDisk(self) -> None:
        """While the disk has not answered for half the time there is no sign of life, and then there is."""
        manager = Told(60.0)
        self.supervisor(manager)
        self.stuck = 29.0
        self.clock.pump([1] * 60)
        self.assertIn("WATCHDOG=1", manager.take())
        self.stuck = 30.0
        self.clock.pump([1] * 120)
        self.assertNotIn("WATCHDOG=1", manager.take())
        self.stuck = 0.0
        self.clock.advance(1)
        self.assertIn("WATCHDOG=1", manager.take())
