"""What the demo does while it runs, without what runs."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

import walsender.demo
from walsender.demo.display import Display

if TYPE_CHECKING:
    from collections.abc import Callable


class Load:
    """A load that runs."""

    def check_running(self) -> bool:
        """It does."""
        return True


class Scene:
    """What `Stage` is to the loop."""

    def __init__(self) -> None:
        self.load = Load()
        self.kills = 0

    def snapshot(self) -> Any:
        """Return what has a line."""
        return self

    def line(self) -> str:
        """Return it."""
        return "a line"

    def kill_relay(self, say: Callable[[str], None]) -> None:
        """Count."""
        self.kills += 1


class LoopTests(SynchronousTestCase):
    """`walsender.demo`'s loop, and how it opens a browser."""

    def watch(self, *times: float | None) -> tuple[Scene, str]:
        """Return what was watched, and what was shown."""
        scene, output = Scene(), io.StringIO()
        self.patch(walsender.demo.sys, "stdin", io.StringIO())
        scene_for_it: Any = scene
        walsender.demo._watch(scene_for_it, Display(output), *times)
        return scene, output.getvalue()

    def test_killsWhenItIsTime(self) -> None:
        """The relay is killed when the time has gone by, and not without such a time."""
        self.assertGreater(self.watch(0.05, 0.01)[0].kills, 0)
        scene, shown = self.watch(0.05, None)
        self.assertEqual((scene.kills, shown), (0, "a line\n"))

    def test_opensThePage(self) -> None:
        """A browser is asked to show the page where there can be one; otherwise the user is."""
        opened: list[str] = []
        self.patch(walsender.demo.webbrowser, "open", lambda page: opened.append(page) or True)
        for environment, said in (({"BROWSER": "some"}, ""), ({}, "no browser can be started from here; ")):
            self.patch(walsender.demo.os, "environ", environment)
            output = io.StringIO()
            walsender.demo._open("http://page/", Display(output))
            self.assertTrue(output.getvalue().startswith(said), output.getvalue())
        self.assertEqual(opened, ["http://page/"])
