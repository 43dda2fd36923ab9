"""Somebody who has WAL, as a script tells, and sources that fetch from there."""

from __future__ import annotations

import gc
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from source_helpers import MIB, SourceTestCase
from twisted.internet.defer import Deferred

from walsender.errors import WalFileError
from walsender.source import DirectorySource, Fetching, HistorySearch, OpenSegment, TemporaryShelf
from walsender.testing.wal_maker import WalMaker
from walsender.wal import REAL_FILES

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence


def _put(directory: str, name: str, content: bytes) -> None:
    Path(directory, name).write_bytes(content)


class Provider:
    """
    A provider for tests.

    :ivar files: what it has.
    :ivar holding: it answers when `answer` is called.
    :ivar error: it fails with it.
    :ivar asked: for which files, in order.
    :ivar cancelled: which of them were given up.
    :ivar put: makes a file, by directory, name and content.
    """

    def __init__(self, files: dict[str, bytes], description: str = "the archive") -> None:
        self.files = files
        self.description = description
        self.holding = False
        self.error: Exception | None = None
        self.asked: list[str] = []
        self.cancelled: list[str] = []
        self.put: Callable[[str, str, bytes], object] = _put
        self._held: dict[str, tuple[Deferred[bool], str]] = {}

    def fetch(self, name: str, directory: str) -> Deferred[bool]:
        """See `IWalProvider`."""
        self.asked.append(name)
        answer: Deferred[bool] = Deferred(lambda _: self._cancelled(name))
        self._held[name] = answer, directory
        if not self.holding:
            self.answer(name)
        return answer

    @property
    def waiting(self) -> list[str]:
        """What was asked for and is not answered yet."""
        return list(self._held)

    def answer(self, name: str) -> None:
        """Answer for one file."""
        answer, directory = self._held.pop(name)
        if self.error is not None:
            answer.errback(self.error)
        elif name in self.files:
            self.put(directory, name, self.files[name])
            answer.callback(True)
        else:
            answer.callback(False)

    def _cancelled(self, name: str) -> None:
        del self._held[name]
        self.cancelled.append(name)


class FetchingTestCase(SourceTestCase):
    """Has a directory from which the older half is missing, and somebody who has all."""

    SEGMENTS = 12
    HELD = 8
    """Number of the first segment that is in the directory."""

    def made(self) -> WalMaker:
        """Return WAL of some segments."""
        maker = WalMaker()
        maker.fill_to(MIB * self.SEGMENTS + MIB // 2, 20_000)
        return maker

    def fetching_source(
        self,
        maker: WalMaker,
        providers: Sequence[Provider],
        *,
        held: int | None = None,
        histories: Container[int] | None = None,
    ) -> DirectorySource:
        """
        Write what is held, and return a started source.

        :param held: number of the first segment.
        :param histories: timelines; ``None``: all.
        """
        for name, content in maker.files().items():
            if name.endswith(".history"):
                is_held = histories is None or int(name[:8], 16) in histories
            else:
                is_held = int(name[16:], 16) >= (self.HELD if held is None else held)
            if is_held:
                (self.path / name).write_bytes(content)
        source = DirectorySource(self.clock, self.threads, self.files, str(self.path))
        self.patch_temporary_directory()
        shelf = TemporaryShelf(self.threads, REAL_FILES, source)
        source.fetching = Fetching(partial(self.clock.callLater, 0), shelf, source, providers)
        source.histories = HistorySearch(self.clock, source.fetching, source)
        source.start()
        self.addCleanup(source.stop)
        return source

    def patch_temporary_directory(self) -> None:
        """Let temporary files be made where a test can look."""
        self.temporary = self.path / "temporary"
        self.temporary.mkdir(exist_ok=True)
        self.patch(os, "environ", {**os.environ, "TMPDIR": str(self.temporary)})

    def left(self) -> list[str]:
        """Return the files that are on disk outside of the WAL directory."""
        return sorted(path.name for path in self.temporary.rglob("*") if path.is_file())

    def content(self, opening: Deferred[OpenSegment]) -> bytes:
        """Return what can be read from an opened segment, and let go of it."""
        segment = self.successResultOf(opening)
        return REAL_FILES.read(segment.descriptor, segment.end - segment.start, 0)

    def forget(self) -> None:
        """Let what nobody refers to be gone, and be seen to be."""
        gc.collect()
        self.clock.advance(0)


ERROR = WalFileError("its robot is on strike", hint="Pay it.")
