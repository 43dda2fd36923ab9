"""
The main job, live and on real data: ``python -m walsender demo``.

An embedded PostgreSQL 18 writes WAL, a relay receives it, and two real standbys
and a ``pg_receivewal`` follow the relay.  None of them ever hears of the primary,
and they still have all of it when the relay has been killed a few times.
Everything lives in a temporary directory, which is removed at the end.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import webbrowser
from typing import TYPE_CHECKING, Final

from walsender.testing.installation import PostgresInstallation, PostgresMissingError
from walsender.testing.processes import ProgramError, TimedOutError

from .display import Display
from .keys import Keys
from .scratch import scratch
from .stage import stage

if TYPE_CHECKING:
    from .display import Output
    from .stage import Stage

__all__ = ["run"]

_MAJOR: Final = 18
_PERIOD_S: Final = 1.0
_MISSING: Final = 'needs the "demo" extra: pip install "walsender[demo]"'


def run(
    duration_s: float | None = None,
    output: Output = sys.stdout,
    errors: Output = sys.stderr,
    *,
    kill_every_s: float | None = None,
    open_page: bool = False,
) -> int:
    """
    Run the demo and return its exit status: 0 if in the end all have what the primary has.

    :param duration_s: how long, or ``None`` to go on until Ctrl-C.
    :param kill_every_s: how often the relay is killed and started again; ``None``: when its key is pressed.
    :param open_page: show the relay's page in a browser.
    """
    display = Display(output)
    interrupts = _Interrupts()
    try:
        with scratch(lambda path: display.say(f"an earlier demo left {path}: removed")) as space:
            installation = PostgresInstallation.embedded(_MAJOR, copy_to=space)
            with stage(installation, space, display.say) as scene:
                try:
                    if open_page:
                        _open(scene.page, display)
                    _watch(scene, display, duration_s, kill_every_s)
                    interrupts.armed = True
                    return 0 if scene.verdict(display.say) else 1
                finally:
                    interrupts.armed = False
    except PostgresMissingError:
        errors.write(f"walsender demo: {_MISSING}\n")
    except (ProgramError, TimedOutError, OSError) as error:
        errors.write(f"walsender demo: {error}\n")
    except KeyboardInterrupt:
        errors.write("walsender demo: interrupted\n")
    return 1


class _Interrupts:
    """
    Make signals that end a program a KeyboardInterrupt, once.

    Who is impatient while everything ends would leave something behind; and that has its limits in time.

    :ivar armed: whether the next signal interrupts.
    """

    def __init__(self) -> None:
        self.armed = True
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # A shell makes us ignore SIGINT with "&", and nohup SIGHUP: that alone shall hold.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._signalled)

    def _signalled(self, number: int, frame: object) -> None:
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt


def _open(page: str, display: Display) -> None:
    # Where there is no screen, a browser would be one that takes the terminal.
    names = ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")
    if not (any(map(os.environ.get, names)) and webbrowser.open(page)):
        display.say(f"no browser can be started from here; open {page} in yours")


def _watch(scene: Stage, display: Display, duration_s: float | None, kill_every_s: float | None) -> None:
    """Show a snapshot each second and kill the relay when it is time, until the end, q or Ctrl-C."""
    never = float("inf")
    now = due = time.monotonic()
    end = now + (duration_s or never)
    kill = now + (kill_every_s or never)
    try:
        with Keys(sys.stdin) as keys:
            display.keys = "k kills the relay, q ends" if keys.working else "Ctrl-C ends"
            while now < end:
                key = keys.wait(min(due, end, kill) - now)
                now = time.monotonic()
                if key == "q":
                    break
                if key == "k" or now >= kill:
                    scene.kill_relay(display.say)
                    kill = time.monotonic() + (kill_every_s or never)
                if now >= due:
                    scene.load.check_running()
                    display.show(scene.snapshot())
                    due = due + _PERIOD_S if due + _PERIOD_S > now else now + _PERIOD_S
    except KeyboardInterrupt:
        display.say("")
