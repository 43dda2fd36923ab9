"""The programs of docs/embedding.md, run as they stand but for ports and the length of an hour."""

from __future__ import annotations

import re
import signal
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import pytest
from twistd_helpers import Twistd, make_wal, small_place

from walsender.source.permits import Permits
from walsender.testing.postgres import free_port
from walsender.testing.processes import ChildProcess, source_environment, wait_until
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE: Final = (Path(__file__).parents[2] / "docs" / "embedding.md").read_text()
FILE: Final = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)```\n", re.DOTALL)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with the programs, WAL and a website."""
    with small_place() as path:
        for name, text in FILE.findall(PAGE):
            (path / name).write_text(text)
        make_wal(path / "archive")
        (path / "site").mkdir()
        (path / "site" / "index.html").write_text("a website")
        yield path


def adapt(path: Path, *changes: tuple[str, str]) -> None:
    """Replace texts, each of which is there once."""
    text = path.read_text()
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    path.write_text(text)


def end_of_wal(port: int) -> str | None:
    """Return what the server at *port* tells as the end of its WAL; ``None`` if it is starting up."""
    try:
        with RawClient("127.0.0.1", port).ready() as client:
            return client.query("IDENTIFY_SYSTEM")[1].values()[2]
    except ConnectionError as error:
        if "starting up" not in str(error) and "refused" not in str(error):
            raise
        return None


def test_everyProgramIsRun() -> None:
    """All code of the page is in files that are run, and nothing else is Python there."""
    assert [name for name, _ in FILE.findall(PAGE)] == [
        "site.tac",
        "delayed.py",
        "delayed.tac",
        "test_delayed.py",
        "counting.py",
        "test_counting.py",
    ]
    assert PAGE.count("```") == 2 * len(FILE.findall(PAGE))


def test_besideAWebsite(place: Path) -> None:
    """Both are served, and both end."""
    web, wal = free_port(), free_port()
    adapt(place / "site.tac", ("tcp:8080", f"tcp:{web}"), ("tcp:5433", f"tcp:{wal}"))
    with Twistd(place, ["--python", "site.tac"]) as twistd:
        assert wait_until(lambda: end_of_wal(wal), 60, "WAL") == end(place)
        with urllib.request.urlopen(f"http://127.0.0.1:{web}/", timeout=30) as answer:
            assert answer.read() == b"a website"
        twistd.signal(signal.SIGTERM)
        twistd.wait()
        assert "Traceback" not in twistd.log_text()


def end(place: Path) -> str:
    """Return where the WAL that `make_wal` makes ends."""
    position = make_wal(place / "same").position
    return f"0/{position:X}"


def test_delayed(place: Path) -> None:
    """The delayed source has nothing at first, and then what there was."""
    now, then = free_port(), free_port()
    adapt(
        place / "delayed.tac",
        ("tcp:5433", f"tcp:{now}"),
        ("tcp:5434", f"tcp:{then}"),
        ("DELAY_S = 3600", "DELAY_S = 1"),
    )
    with Twistd(place, ["--python", "delayed.tac"]) as twistd:
        assert wait_until(lambda: end_of_wal(then), 60, "old WAL") == end(place)
        assert end_of_wal(now) == end(place)
        twistd.signal(signal.SIGTERM)
        twistd.wait()
        assert "Traceback" not in twistd.log_text()


def test_tests(place: Path) -> None:
    """The tests of the page are passed, by trial."""
    command = [sys.executable, "-m", "twisted.trial", "--temp-directory", place / "trial"]
    environment = {"PYTHONPATH": f"{place}:{source_environment().get('PYTHONPATH', '')}"}
    with ChildProcess(
        "trial",
        [*command, "test_delayed", "test_counting"],
        place / "trial.log",
        environment=environment,
    ) as trial:
        assert trial.wait(60) == 0, trial.log_text()
        assert "PASSED (successes=5)" in trial.log_text()


def test_nothingPassesTheDelay() -> None:
    """The delayed source over a relay lets nobody send what is new at once."""
    namespace: dict[str, Any] = {}
    exec(dict(FILE.findall(PAGE))["delayed.py"], namespace)
    relayed = mock.Mock(permits=Permits(), newest=object())
    delayed = namespace["DelayedSource"](None, relayed, 30)
    assert delayed.permits is delayed.newest is None
