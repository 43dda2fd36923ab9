"""
`SegmentWriter`: received WAL into the files of `pg_receivewal`'s format, durable before it is told of.

A segment grows as ``NAME.partial``, made with its full size and synced, name
included, before anything is written into it, so that neither a full disk nor a
crash finds it half made; complete, it is synced and renamed to ``NAME``.

What the directory held before is compared with what comes, never overwritten.  What
stands behind the end of its valid WAL may be the beginning of a record, which cannot be
told from garbage but was promised: it stays until the same comes again.  A file whose
sync has failed is not written to again: its segment is received from the start into a
new file, which takes the old one's name when it holds, on disk, all that the old one was
trusted for.

Everything here blocks, and knows no threads: one call at a time.

Source: PostgreSQL, src/bin/pg_basebackup/receivelog.c and walmethods.c.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from walsender.errors import DataCorrupted, DiskFull, WalFileError, file_error
from walsender.wal import CoveredFile, SyncFailed, parse_identity, segment_name
from walsender.wal.segment import PARTIAL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from walsender.lsn import Geometry
    from walsender.upstream.room import Room
    from walsender.wal import Identity, WalIdentity, WritableFiles

# Of a segment that takes the place of one whose sync has failed.
REPLACEMENT: Final = ".new"

_ZEROS: Final = bytes(1 << 20)
_HEADER: Final = 64  # bytes; no long header is longer
_LITTLE: Final = 64 << 10  # bytes of a commit that are worth keeping at hand
# Bytes that are written at a time.  For more, the kernel looks for memory in larger units, which is memory
# that nobody has used for long: docs/performance.md.
_SHARE: Final = 256 << 10


@dataclass(slots=True)
class Commit:
    """
    What has become durable.

    :ivar position: all before it is on disk, under names that are on disk.
    :ivar identity: whose WAL it is.
    :ivar files: the files written to or compared with, by name, in the order in which they came into use.
    :ivar failure: why the rest of what came is not kept; it ends with a whole segment then.
    :ivar newest: what has come with this commit, up to *position*, if that is little; else nothing.
    :ivar sent: it has been sent to all who wait for it.
    """

    position: int
    identity: WalIdentity | None = None
    files: list[CoveredFile] = field(default_factory=list)
    failure: DiskFull | None = None
    newest: bytes = b""
    sent: bool = False


class SegmentWriter:
    """
    Writes one timeline's WAL, from a segment's start on.

    :param path: of the WAL directory.
    :param start: position of a segment's first byte, which is the next to be written.
    :param valid: position up to which the directory's files are valid and durable; what is written
        below it is compared with them.
    :param identity: whose WAL is expected; ``None``: take what comes first.
    :param distrusted: files whose sync has failed, to which this adds.
    :param made: is called with each new file, which may have the number of one that is gone.
    :param room: is asked before a segment's file is made.
    """

    def __init__(
        self,
        files: WritableFiles,
        path: str,
        geometry: Geometry,
        timeline: int,
        start: int,
        valid: int,
        *,
        identity: WalIdentity | None,
        distrusted: set[Identity],
        made: Callable[[Identity], object] = bool,
        room: Room | None = None,
    ) -> None:
        self._files = files
        self._room = room
        self._path = path
        self._geometry = geometry
        self._timeline = timeline
        self._position = start
        self._valid = valid
        self._identity = identity
        self._distrusted = distrusted
        self._made = made
        self._descriptor = -1
        self._file = CoveredFile("", (0, 0))
        self._number = 0
        self._begin = self._end = 0  # of the segment, positions
        self._expected = start
        self._is_complete = self._is_replacement = self._unsynced = False
        self._used: list[CoveredFile] = []

    def commit(self, pieces: Sequence[bytes | memoryview], behind: int = 0) -> Commit:
        """
        Write what has come, make it durable and return how far WAL is on disk.

        After an error, in the commit too, this object is of no more use than for `close`.

        :param pieces: WAL, one behind the other and behind all before; none of length 0.
        :param behind: so many bytes at least are known to follow.
        :raises DataCorrupted: what came is not what is held, or not of this cluster.
        :raises DiskFull: there is no room.
        :raises SyncFailed: a file cannot be synced, and is not to be trusted again.
        :raises WalFileError: a file cannot be made or written.
        """
        self._used = []
        begin = self._position
        failure = None
        waiting = list(pieces)
        total = sum(map(len, waiting))
        end_of_all = begin + total
        self._expected = end_of_all + behind
        if total <= _LITTLE and self._is_plain_until(end_of_all):
            # What a standby is kept waiting by, nearly always: no more is done than has to be.
            self._write(waiting, total)
            self._sync_file()
            return Commit(end_of_all, self._identity, self._used, newest=b"".join(pieces))
        while waiting:
            if self._descriptor < 0:
                self._check_start(waiting)
                try:
                    self._open(self._geometry.segment_number(self._position))
                except DiskFull as error:
                    if self._position == begin:
                        raise
                    failure = error  # what came before is whole, and is told of
                    break
            end = self._end
            here, waiting = (
                (waiting, []) if end_of_all <= end else (_take(waiting, end - self._position), waiting)
            )
            if (held := self._held_until(end) - self._position) > 0:
                self._compare(_take(here, held))
            while here:
                share = _take(here, _SHARE)
                self._write(share, sum(map(len, share)))
            if self._position == end:
                self._complete()
        self._sync()
        position = max(self._position, self._valid)
        newest = b"".join(pieces) if position == end_of_all <= begin + _LITTLE else b""
        return Commit(position, self._identity, self._used, failure, newest)

    def close(self) -> None:
        """Let go of the file; what was not committed is not promised."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self._files.close(descriptor)

    # Files

    @property
    def _offset(self) -> int:
        return self._position - self._begin

    def _is_plain_until(self, end: int) -> bool:
        """Return whether what comes goes into the open file, before its end and behind all that is held."""
        return (
            self._descriptor >= 0
            and not (self._is_complete or self._is_replacement)
            and self._position >= self._valid
            and end < self._end
        )

    def _open(self, number: int) -> None:
        """Open the segment's file, or make it."""
        name = segment_name(self._timeline, number, self._geometry)
        self._number = number
        self._begin = self._geometry.segment_start(number)
        self._end = self._begin + self._geometry.segment_size
        self._is_complete = self._is_replacement = False
        for candidate in (name, name + PARTIAL):
            try:
                self._descriptor = self._files.open_to_write(f"{self._path}/{candidate}")
                identity = self._files.identity(self._descriptor)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise file_error(f'could not open file "pg_wal/{candidate}"', error) from error
            if identity in self._distrusted:
                self._replace(name + PARTIAL)
            else:
                self._file = CoveredFile(candidate, identity)
                self._is_complete = candidate == name
                self._unsynced = True  # nobody knows who wrote it, and how
                if not self._is_complete:
                    self._fill(self._size())
                self._sync_directory()
            break
        else:
            # What another form of the file holds, compressed perhaps, it goes on holding until this one does.
            self._is_replacement = self._valid > self._begin
            self._make(name + PARTIAL + REPLACEMENT if self._is_replacement else name + PARTIAL)
        self._used.append(self._file)

    def _replace(self, name: str) -> None:
        """
        Make a file in the place of the open one, which is not trusted.

        Behind the last whole record, which is where valid WAL ends after a crash, the old one may have the
        beginning of the next, durable long since and promised.  The new one must not take it away.
        """
        old, self._descriptor = self._descriptor, -1
        try:
            self._make(name + REPLACEMENT)
            self._is_replacement = True
            size = self._geometry.segment_size
            offset = min(size, max(0, self._valid - self._begin))
            while offset < size:
                try:
                    data = self._files.read(old, min(len(_ZEROS), size - offset), offset)
                except OSError as error:
                    raise file_error(f'could not read file "pg_wal/{name}"', error) from error
                if not data:
                    break
                offset += self._written([data], offset)
        finally:
            self._files.close(old)
        self._unsynced = True

    def _make(self, name: str) -> None:
        """Make a segment's file with its full size; a crash leaves it whole, or a file with no WAL in it."""
        path = f"{self._path}/{name}"
        if self._room is not None:
            self._room.check(self._geometry.segment_size)
        try:
            if name.endswith(REPLACEMENT):
                with contextlib.suppress(FileNotFoundError):
                    self._files.remove(path)  # of a former attempt: it is not to be trusted either
            self._descriptor = self._files.create(path)
            self._file = CoveredFile(name, self._files.identity(self._descriptor))
            self._distrusted.discard(self._file.identity)  # of a file that is gone
            self._made(self._file.identity)
        except OSError as error:
            raise file_error(f'could not create file "pg_wal/{name}"', error) from error
        try:
            self._reserve()
            self._sync_directory()
        except WalFileError:
            # There is no WAL in it, and where it has the name of a segment there ought to be.  A quota, which
            # is not seen before, is needed for other things too.
            self.close()
            with contextlib.suppress(OSError):
                self._files.remove(path)
            raise

    def _size(self) -> int:
        try:
            return self._files.size(self._descriptor)
        except OSError as error:
            raise file_error(f'could not stat file "pg_wal/{self._file.name}"', error) from error

    def _reserve(self) -> None:
        """
        Give the file its full size, and the disk's blocks.

        Zeros are written so that small commits need not change the file's map of blocks, which
        costs another write each.  A segment that will be overwritten at once needs none.
        """
        if self._expected < self._end:
            self._fill(0)
            return
        try:
            self._files.allocate(self._descriptor, self._geometry.segment_size)
        except OSError as error:
            raise file_error(f'could not write to file "pg_wal/{self._file.name}"', error) from error
        self._unsynced = True

    def _fill(self, offset: int) -> None:
        """Fill the file with zeros from *offset* to a segment's size, durably."""
        size = self._geometry.segment_size
        while offset < size:
            zeros = [memoryview(_ZEROS)[: min(len(_ZEROS), size - offset)]]
            offset += self._written(zeros, offset)
        self._unsynced = True
        self._sync_file()

    def _complete(self) -> None:
        """The segment is whole: give it its final name."""
        self._sync()
        if self._is_complete:
            self.close()
            return
        final = segment_name(self._timeline, self._number, self._geometry)
        self._rename(final)
        self.close()

    def _rename(self, name: str) -> None:
        try:
            self._files.rename(f"{self._path}/{self._file.name}", f"{self._path}/{name}")
        except OSError as error:
            raise file_error(
                f'could not rename file "pg_wal/{self._file.name}" to "pg_wal/{name}"', error
            ) from error
        self._file = CoveredFile(name, self._file.identity)
        self._used.append(self._file)
        self._sync_directory()

    # Bytes

    def _check_start(self, waiting: list[bytes | memoryview]) -> None:
        """Look whose WAL begins in a segment before anything of it is kept."""
        number = self._geometry.segment_number(self._position)
        name = segment_name(self._timeline, number, self._geometry)
        begin = b"".join(bytes(piece[:_HEADER]) for piece in waiting[:_HEADER])
        found = parse_identity(name, begin)
        if found.geometry != self._geometry:  # servers before version 10 do not tell it beforehand
            raise DataCorrupted(
                f'WAL for "pg_wal/{name}" has segments or pages of another size than the usual',
                hint="Begin with a WAL directory that has a segment of it.",
            )
        if self._identity is None:
            self._identity = found
        elif found != self._identity:
            raise DataCorrupted(
                f'WAL for "pg_wal/{name}" is from a different database system',
                detail=f"The upstream sends WAL of system identifier {found.system_identifier} "
                f"(PostgreSQL {found.format.name}), the directory holds WAL of "
                f"{self._identity.system_identifier} (PostgreSQL {self._identity.format.name}).",
            )

    def _held_until(self, end: int) -> int:
        """Return up to which position the file at hand, whose segment ends at *end*, holds what must come."""
        if self._is_complete:
            return end
        return 0 if self._is_replacement else min(self._valid, end)

    def _compare(self, pieces: list[bytes | memoryview]) -> None:
        for piece in pieces:
            try:
                held = self._files.read(self._descriptor, len(piece), self._offset)
            except OSError as error:
                raise file_error(f'could not read file "pg_wal/{self._file.name}"', error) from error
            if held != piece:
                raise DataCorrupted(
                    f'WAL from the upstream differs from file "pg_wal/{self._file.name}" behind '
                    f"{self._geometry.lsn(self._position)}",
                    hint="Both are kept as they are.  Find out which is right, and remove the other.",
                )
            self._position += len(piece)

    def _write(self, pieces: list[bytes | memoryview], total: int) -> None:
        done = 0
        while done < total:
            written = self._written(pieces, self._offset)
            self._position += written
            done += written
            if done < total:
                _take(pieces, written)
        if total:
            self._unsynced = True

    def _written(self, pieces: Sequence[bytes | memoryview], offset: int) -> int:
        try:
            written = self._files.write(self._descriptor, pieces, offset)
        except OSError as error:
            raise file_error(f'could not write to file "pg_wal/{self._file.name}"', error) from error
        if not written:
            raise WalFileError(f'could not write to file "pg_wal/{self._file.name}": nothing was taken')
        return written

    # Durability

    def _sync(self) -> None:
        """Make durable what was written."""
        if self._descriptor < 0:
            return
        self._sync_file()
        if self._is_replacement and self._position >= min(self._valid, self._end):
            self._rename(self._file.name.removesuffix(REPLACEMENT))
            self._is_replacement = False

    def _sync_file(self) -> None:
        if not self._unsynced:
            return
        try:
            self._files.sync_data(self._descriptor)
        except OSError as error:
            self._distrusted.add(self._file.identity)
            raise SyncFailed(
                file_error(f'could not fsync file "pg_wal/{self._file.name}"', error).message,
                self._file.identity,
            ) from error
        self._unsynced = False

    def _sync_directory(self) -> None:
        try:
            self._files.sync_directory(self._path)
        except OSError as error:
            raise file_error('could not fsync file "pg_wal"', error) from error


def _take(pieces: list[bytes | memoryview], length: int) -> list[bytes | memoryview]:
    """Take *length* bytes off the front of *pieces*, or all there are, and return them."""
    count = 0
    while count < len(pieces) and len(pieces[count]) <= length:
        length -= len(pieces[count])
        count += 1
    taken = pieces[:count]
    del pieces[:count]
    if pieces and length:
        view = memoryview(pieces[0])
        taken.append(view[:length])
        pieces[0] = view[length:]
    return taken
