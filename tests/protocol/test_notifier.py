"""`DirectoryNotifier` on the kernel's inotify: told of content and of names, and nothing without it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest import mock

import pytest_twisted
from twisted.internet import inotify, reactor  # noqa: TID253 (pytest-twisted has installed it)
from twisted.internet.task import deferLater

from walsender.source.notifier import DirectoryNotifier

if TYPE_CHECKING:
    from pathlib import Path


async def until(seen: list[bool], wanted: bool) -> None:
    """Let the reactor go round until *wanted* has been seen."""
    for _ in range(100_000):
        if wanted in seen:
            return
        await deferLater(reactor, 0, bool)
    raise AssertionError(f"never told {wanted}")


@pytest_twisted.ensureDeferred
async def test_changes(tmp_path: Path) -> None:
    """A file that grows is content; one that is made, closed, renamed or removed is names, too."""
    path = tmp_path / "segment"
    seen: list[bool] = []
    notifier = DirectoryNotifier(reactor, str(tmp_path))
    notifier.start(seen.append)
    try:
        with path.open("wb", buffering=0) as file:
            await until(seen, True)
            seen.clear()
            file.write(b"x")
            await until(seen, False)
        for change in (lambda: path.rename(tmp_path / "other"), (tmp_path / "other").unlink):
            seen.clear()
            change()
            await until(seen, True)
    finally:
        notifier.stop()
        notifier.stop()
    seen.clear()
    path.write_bytes(b"y")
    for _ in range(20):
        await deferLater(reactor, 0, bool)
    assert not seen


def test_without_inotify(tmp_path: Path) -> None:
    """Where inotify cannot be had that is said, and nothing else happens."""
    notifier = DirectoryNotifier(reactor, str(tmp_path))
    warnings: list[str] = []
    with mock.patch.object(DirectoryNotifier, "_log") as log:
        log.warn.side_effect = lambda text, **fields: warnings.append(text.format(**fields))
        with mock.patch.object(inotify, "INotify", side_effect=inotify.INotifyError("no instances left")):
            notifier.start(lambda _: None)
        DirectoryNotifier(reactor, str(tmp_path / "missing")).start(lambda _: None)
    assert "no instances left" in warnings[0]
    assert len(warnings) == 2
    notifier.stop()
