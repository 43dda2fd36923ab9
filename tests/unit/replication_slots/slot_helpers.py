"""A disk that crashes (what was not synced may be there, or not, or torn), and slots on it."""

from __future__ import annotations

import errno
import os
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import WalsenderError
from walsender.replication_slots import ReplicationSlots, SlotStorage

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsender.lsn import LSN

STATE = "/state"


class Crash(BaseException):
    """The power is gone.  No handler of errors may catch it."""


@dataclass(eq=False)
class _File:
    """Its content as programs see it, and what is known to be on the platter."""

    content: bytes
    durable: bytes | None = None


@dataclass
class _Directory:
    """Names as programs see them, as they are on the platter, and what changed between, in order."""

    names: dict[str, _File] = field(default_factory=dict)
    durable: dict[str, _File] = field(default_factory=dict)
    pending: list[dict[str, _File]] = field(default_factory=list)

    def change(self, names: dict[str, _File]) -> None:
        """Give it other names, which a crash may take back."""
        self.names = names
        self.pending.append(dict(names))


class SimulatedDisk:
    """
    `SlotFiles` in memory.

    :ivar operations: how many have begun.
    :ivar crash_at: the operation that never returns; it may have been done or not.
    :ivar failing: operation → the error number that it fails with.
    :ivar log: the operations, for whoever wants to see their order.
    """

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._directories: dict[str, _Directory] = {"/": _Directory(), STATE: _Directory()}
        self.operations = 0
        self.crash_at: int | None = None
        self.failing: dict[str, int] = {}
        self.log: list[str] = []

    def crash(self) -> None:
        """Keep of what was not synced what chance leaves; rename and the like are atomic and in order."""
        for directory in self._directories.values():
            names = self._random.choice([directory.durable, *directory.pending])
            directory.names, directory.durable, directory.pending = dict(names), dict(names), []
            for file in directory.names.values():
                if file.durable is None:
                    torn = file.content[: self._random.randrange(len(file.content) + 1)]
                    file.content = self._random.choice([b"", torn, bytes(len(file.content)), file.content])
                file.durable = file.content
        self.crash_at = None

    def put(self, name: str, content: bytes) -> None:
        """Put a durable file among the slots."""
        directory = self._directories.setdefault(f"{STATE}/replication_slots", _Directory())
        directory.names[name] = directory.durable[name] = _File(content, content)

    def files(self) -> dict[str, bytes]:
        """Return the files among the slots."""
        directory = self._directories.get(f"{STATE}/replication_slots", _Directory())
        return {name: file.content for name, file in directory.names.items()}

    # SlotFiles

    def list_directory(self, path: str) -> list[str]:
        """See `SlotFiles`."""
        self._check("list", path)
        return list(self._directory(path).names)

    def make_directory(self, path: str) -> None:
        """See `SlotFiles`."""
        if not self._begin("mkdir", path):
            self._directories.setdefault(path, _Directory())
            raise Crash
        self._directories.setdefault(path, _Directory())

    def read(self, path: str, limit: int) -> bytes:
        """See `SlotFiles`."""
        self._check("read", path)
        return self._file(path).content[:limit]

    def write(self, path: str, data: bytes) -> None:
        """See `SlotFiles`."""
        finishes = self._begin("write", path)
        directory, name = self._split(path)
        directory.change({**directory.names, name: _File(data if finishes else data[: len(data) // 2])})
        if not finishes:
            raise Crash

    def sync(self, path: str) -> None:
        """See `SlotFiles`."""
        self._check("sync", path)
        file = self._file(path)
        file.durable = file.content

    def sync_directory(self, path: str) -> None:
        """See `SlotFiles`."""
        self._check("sync_directory", path)
        directory = self._directory(path)
        directory.durable, directory.pending = dict(directory.names), []

    def rename(self, old: str, new: str) -> None:
        """See `SlotFiles`."""
        finishes = self._begin("rename", new)
        directory, name = self._split(old)
        names = dict(directory.names)
        names[self._split(new)[1]] = names.pop(name)
        directory.change(names)
        if not finishes:
            raise Crash

    def remove(self, path: str) -> None:
        """See `SlotFiles`."""
        self._file(path)
        finishes = self._begin("remove", path)
        directory, name = self._split(path)
        directory.change({other: file for other, file in directory.names.items() if other != name})
        if not finishes:
            raise Crash

    # Inside

    def _begin(self, operation: str, path: str) -> bool:
        """Count an operation; return whether it will come to its end."""
        self.log.append(f"{operation} {path.removeprefix(STATE)}")
        if operation in self.failing:
            number = self.failing[operation]
            raise OSError(number, os.strerror(number), path)
        self.operations += 1
        if self.operations - 1 == self.crash_at:
            if self._random.random() < 0.5:
                raise Crash
            return False
        return True

    def _check(self, operation: str, path: str) -> None:
        if not self._begin(operation, path):
            raise Crash

    def _directory(self, path: str) -> _Directory:
        if path not in self._directories:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self._directories[path]

    def _split(self, path: str) -> tuple[_Directory, str]:
        directory, _, name = path.rpartition("/")
        return self._directory(directory), name

    def _file(self, path: str) -> _File:
        directory, name = self._split(path)
        if name not in directory.names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return directory.names[name]


HERE, THERE = 11, 12  # process ids


class SlotsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        """Slots on a disk, with threads that run at once, or when told to."""
        self.disk = SimulatedDisk()
        self.clock = Clock()
        self.holding = False
        self.jobs: list[Callable[[], None]] = []
        self.slots = self.make()

    def make(self, limit: int = 100) -> ReplicationSlots:
        """Return the slots of a new process on the same disk."""
        return ReplicationSlots(SlotStorage(self.disk, STATE), limit, self.clock, self.run_in_thread)

    def run_in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """See `deferToThread`."""
        if not self.holding:
            return maybeDeferred(function, *arguments)
        result: Deferred[Any] = Deferred()
        self.jobs.append(lambda: maybeDeferred(function, *arguments).chainDeferred(result))
        return result

    def finish(self) -> None:
        """Let the disk do all that waits for it."""
        while self.jobs:
            self.jobs.pop(0)()

    def assertRefused(
        self, sqlstate: str, message: str, function: Callable[..., Any], *args: Any, **more: Any
    ) -> None:
        """Check how something is refused, at once or by its Deferred."""
        error = self.failureResultOf(maybeDeferred(function, *args, **more), WalsenderError).value
        self.assertEqual((sqlstate, message), (error.sqlstate, error.message))

    @property
    def on_disk(self) -> dict[str, LSN]:
        """What a new process would find."""
        slots = self.make()
        slots.load()
        return {slot.name: slot.restart_lsn for slot in slots}
