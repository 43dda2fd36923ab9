"""
The files of permanent slots: one per slot, replaced whole or not at all.

A slot ``NAME`` is ``replication_slots/NAME.slot`` in the state directory.  Every
change is a new file ``NAME.slot.tmp``: written, synced, renamed, and the directory
synced.  A crash before the rename is durable leaves the old file, after it the new
one; rename is atomic, and the content was durable before it.  Removal is one
unlink.  Nothing has been promised to anybody until the directory is synced.

All of this blocks, and knows no threads: one call at a time.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from walsender.errors import DataCorrupted

from .state import MAX_STATE_SIZE, SlotState, check_name, decode_state, encode_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from .files import SlotFiles

SLOTS_DIRECTORY: Final = "replication_slots"
"""Name of the directory inside the state directory."""

_SUFFIX: Final = ".slot"
_TEMPORARY_SUFFIX: Final = ".slot.tmp"


@dataclass(frozen=True, slots=True)
class StoredSlots:
    """
    What was found on disk.

    :ivar states: by name.
    :ivar damaged: path of a file that is refused, and why.
    """

    states: dict[str, SlotState] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)


class SlotStorage:
    """
    The permanent slots of one state directory.

    :param prepare: called before anything is written, for the first time and after it has failed:
        makes and locks the state directory.
    """

    def __init__(self, files: SlotFiles, state_directory: str, prepare: Callable[[], object] = bool) -> None:
        self._files = files
        self._state_directory = state_directory
        self._directory = str(Path(state_directory, SLOTS_DIRECTORY))
        self._prepare = prepare

    def holds_slots(self) -> bool:
        """
        Return whether there is any slot file, damaged or not; nothing is changed.

        :raises OSError: the directory is there and cannot be read.
        """
        try:
            names = self._files.list_directory(self._directory)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return any(name.endswith(_SUFFIX) for name in names)

    def open(self) -> StoredSlots:
        """
        Make what is missing, and return all slots; from now on slots may be saved.

        What was found by reading may be in memory only: a process that was killed between rename
        and sync leaves it so.  Therefore it is synced here, before anybody is told of it.

        :raises OSError: that is not possible.
        :raises walsender.errors.ConfigurationError: *prepare* says so.
        """
        files = self._files
        self._prepare()
        files.make_directory(self._directory)
        stored = StoredSlots()
        for name in sorted(files.list_directory(self._directory)):
            path = str(Path(self._directory, name))
            if name.endswith(_TEMPORARY_SUFFIX):
                files.remove(path)  # of a save that came to nothing
            elif name.endswith(_SUFFIX):
                try:
                    state = decode_state(files.read(path, MAX_STATE_SIZE))
                    if f"{state.name}{_SUFFIX}" != name:
                        raise DataCorrupted(f'it is the file of the slot "{state.name}"')  # noqa: TRY301
                except (DataCorrupted, OSError) as error:
                    stored.damaged[path] = _reason(error)
                else:
                    self._make_durable(state, path)
                    stored.states[state.name] = state
        files.sync_directory(self._directory)
        files.sync_directory(self._state_directory)
        # Whoever may not read the directory above cannot sync it; PostgreSQL lets that pass too.
        with contextlib.suppress(PermissionError):
            files.sync_directory(str(Path(self._state_directory).parent))
        return stored

    def save(self, state: SlotState) -> None:
        """
        Make *state* durable; if this raises, the old state or this one is kept.

        :raises OSError: that is not possible.
        """
        check_name(state.name)  # it becomes part of a path
        files, final = self._files, self._path(state.name)
        temporary = f"{self._directory}/{state.name}{_TEMPORARY_SUFFIX}"
        files.write(temporary, encode_state(state))
        files.sync(temporary)
        files.rename(temporary, final)
        files.sync_directory(self._directory)

    def remove(self, name: str) -> None:
        """
        Remove a slot's file for good; harmless if there is none.

        :raises OSError: that is not possible, or may not be durable.
        """
        check_name(name)
        with contextlib.suppress(FileNotFoundError):
            self._files.remove(self._path(name))
        self._files.sync_directory(self._directory)

    def _make_durable(self, state: SlotState, path: str) -> None:
        """Sync a file that was found; one whose sync fails is never trusted again, and replaced."""
        try:
            self._files.sync(path)
        except OSError:
            self.save(state)

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}{_SUFFIX}"


def name_of(path: str) -> str:
    """Return which slot's file the one at *path* is."""
    return Path(path).name.removesuffix(_SUFFIX)


def _reason(error: DataCorrupted | OSError) -> str:
    if isinstance(error, DataCorrupted):
        return error.message
    return error.strerror or str(error)
