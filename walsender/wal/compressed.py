"""
Compressed files in a WAL directory, read as if they were not.

`DecompressingFiles` stands between the rest of this room and the real disk.  A file with a
compressed file's name reads as what is in it; every other one is passed through.  It
opens to a descriptor like any other, so that whoever has one (``splice`` too) need not know.

What is in a compressed file is put into a temporary file without a name: expanded
once, however many read it, and gone when the last reader closes it, however this program ends.
Memory would do as well (a memfd), but a hundred standbys in a hundred places of an archive
would take gigabytes of it, while of a file the kernel keeps what it has room for.  What is short-lived
never reaches the disk.  And only a file can be asked whether it would make us wait (``RWF_NOWAIT``).

A file is expanded as far as somebody reads, so that looking at a header costs little, and further
when it has grown.  An unfinished one (``.partial``, or still being copied in) ends where its
data do.  A damaged one has no content at all: what a decompressor makes before it
notices may be wrong already.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import threading
import zlib
from typing import TYPE_CHECKING, Final, Protocol

import lz4.frame

from walsender.errors import DataCorrupted, DiskFull, WalFileError
from walsender.lsn import MAX_SEGMENT_SIZE

from .segment import compression_of

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError
else:
    from backports.zstd import ZstdDecompressor, ZstdError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .files import FileOperations, Identity

_READ_SIZE: Final = 256 << 10  # bytes, of a compressed file
_WRITE_SIZE: Final = 1 << 20  # bytes, of what is in it
_COMPARED: Final = 4 << 10  # bytes before the place where reading goes on that must be as they were
_KEPT: Final = 2  # expanded files that nobody has open: the newest ones are looked at again and again

_NO_DIRECTORY: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS})
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class CannotDecompress(DataCorrupted):
    """A compressed file is damaged, is none, or holds more than it may."""


class _Stream(Protocol):
    """A decompressor of one member or frame, as those of the standard library since ``bz2``."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes | None: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _GzipStream:
    """Gives zlib's decompressor the interface that the others have."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        made = self._stream.decompress(self._stream.unconsumed_tail + data, max_length)
        self.needs_input = len(made) < max_length
        return made


_STREAMS: Final[dict[str, Callable[[], _Stream]]] = {
    "gz": _GzipStream,
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "zst": ZstdDecompressor,
}
_STREAM_ERRORS: Final = (zlib.error, ZstdError, RuntimeError)  # the last is lz4's


def _temporary_file() -> int:
    """Return a descriptor of a new file that has no name; ``TMPDIR`` tells where, if it is set."""
    # /tmp may be in memory; /var/tmp is for what is large.
    for directory in (os.environ.get("TMPDIR") or "/var/tmp", None):  # noqa: S108 -- without a name
        try:
            with tempfile.TemporaryFile(buffering=0, dir=directory) as file:
                return os.dup(file.fileno())
        except OSError as error:
            if directory is None or error.errno not in _NO_DIRECTORY:
                raise
    raise AssertionError("the last one returns or raises")


class _Expansion:
    """
    One compressed file and as much of its content as was needed so far.

    It may be used by several threads, one at a time.

    :param source: descriptor of the compressed file; ours from now on, which also keeps its inode from being
        given to another file.
    :ivar users: how many descriptors there are for it; the owner counts.
    """

    def __init__(self, files: FileOperations, source: int, compression: str) -> None:
        self._files = files
        self._source = source
        self._new_stream = _STREAMS[compression]
        self._lock = threading.Lock()
        self._content = -1
        self._size = 0
        self.identity = files.identity(source)
        self.name = ""
        self.users = 0
        self._begin()

    def __del__(self) -> None:
        self._files.close(self._source)
        if self._content >= 0:
            os.close(self._content)

    def _begin(self) -> None:
        """Expand from the beginning."""
        self._consumed = 0
        self._tail = b""  # the last bytes consumed
        self._continued = False
        self._stream: _Stream | None = None
        self._left = b""  # consumed, and belongs to no stream yet
        self._length = 0
        self._damage: CannotDecompress | None = None

    def open(self, name: str) -> int:
        """
        Return a new descriptor of the content; it grows as that is asked for.

        :param name: that the file has now.
        :raises WalFileError: there is no place for the content.
        """
        with self._lock:
            self.name = name
            self._look_for_growth()
            try:
                if self._content < 0:
                    self._content = _temporary_file()
                return os.dup(self._content)
            except OSError as error:
                raise self._no_room(error) from error

    def sync(self) -> None:
        """Make the compressed file durable: its content can be had from it again."""
        self._files.sync(self._source)

    def length(self, most: int) -> int:
        """
        Return how many bytes of content there are by now.

        :raises DataCorrupted: there are more than *most*, or the file is damaged.
        :raises WalFileError: there is no place for the content.
        """
        with self._lock:
            self._expand(most + 1)
            if self._length > most:
                raise self._refusal(f"it holds more than {most} bytes")
            return self._length

    def read(self, length: int, offset: int) -> bytes:
        """
        Return up to *length* bytes of content from *offset*.

        :raises DataCorrupted: the file is damaged.
        :raises WalFileError: there is no place for the content.
        """
        with self._lock:
            self._expand(offset + length)
            return os.pread(self._content, max(0, min(length, self._length - offset)), offset)

    def _look_for_growth(self) -> None:
        """
        Take notice of what was written since the last time.

        ``pg_receivewal`` writes an unfinished segment anew when it is restarted, into the same file from its
        beginning.  Once that is longer than before, the bytes where reading would go on tell whether it
        is what had been read.
        """
        size = self._files.size(self._source)
        if size == self._size:
            return
        self._size = size
        place = self._consumed - len(self._tail)
        if (
            self._damage is not None
            or size < self._consumed
            or self._files.read(self._source, len(self._tail), place) != self._tail
        ):
            self._begin()
        self._continued = self._consumed > 0

    def _expand(self, wanted: int) -> None:
        """Expand until there are *wanted* bytes, or to the end of what is there."""
        while self._damage is None and self._length < wanted:
            try:
                if not self._step():
                    break
            except _STREAM_ERRORS as error:
                if self._continued:
                    self._begin()  # perhaps it was written anew all the same
                else:
                    self._damage = self._refusal(str(error))
        if self._damage is not None:
            raise self._damage

    def _step(self) -> bool:
        """Expand a piece; return whether there may be more."""
        data, self._left = self._left, b""
        if not data and (self._stream is None or self._stream.needs_input):
            data = self._files.read(
                self._source, min(_READ_SIZE, self._size - self._consumed), self._consumed
            )
            if not data:
                return False
            self._consumed += len(data)
            self._tail = (self._tail + data)[-_COMPARED:]
        if self._stream is None:
            self._stream = self._new_stream()
        made = self._stream.decompress(data, _WRITE_SIZE)
        if self._stream.eof:
            # One file may hold several members: that is how several threads compress, or `cat`.
            self._left = self._stream.unused_data or b""
            self._stream = None
        try:
            while made:
                written = os.pwrite(self._content, made, self._length)
                self._length += written
                made = made[written:]
        except OSError as error:
            self._begin()  # what was consumed is lost
            raise self._no_room(error) from error
        return True

    def _refusal(self, reason: str) -> CannotDecompress:
        return CannotDecompress(f'could not decompress file "pg_wal/{self.name}": {reason}')

    def _no_room(self, error: OSError) -> WalFileError:
        """Return the error for a temporary file that cannot be made or written."""
        kind = DiskFull if error.errno in _FULL else WalFileError
        return kind(f'could not decompress file "pg_wal/{self.name}": {error.strerror}')


class DecompressingFiles:
    """
    `FileOperations` for which a compressed file is what is in it.

    `open`, `read` and `size` raise typed errors too: `walsender.errors.DataCorrupted` for a damaged file,
    another `walsender.errors.WalFileError` where there is no place for the content.
    """

    def __init__(self, files: FileOperations) -> None:
        self._files = files
        # Taken for moments only, also by the reactor's thread.  Again and again by one thread, since
        # a segment may be closed by the garbage collector, wherever that runs.
        self._lock = threading.RLock()
        self._expansions: dict[Identity, _Expansion] = {}
        self._open: dict[int, _Expansion] = {}
        self._idle: dict[Identity, _Expansion] = {}  # nobody has them open, the latest last

    def open(self, path: str) -> int:
        """See `FileOperations`."""
        name = path.rpartition("/")[2]
        compression = compression_of(name)
        dropped = self._drop_idle()
        dropped.clear()  # which closes them, outside of the lock and never in the reactor's thread
        source = self._files.open(path)
        if compression is None:
            return source
        expansion = self._expansion_of(source, compression)
        descriptor = -1
        try:
            descriptor = expansion.open(name)
            with self._lock:
                self._open[descriptor] = expansion
        finally:
            if descriptor < 0:
                self._release(expansion)
        return descriptor

    def _drop_idle(self) -> list[_Expansion]:
        """Forget what nobody has had open for the longest time, and return it."""
        dropped = []
        with self._lock:
            while len(self._idle) > _KEPT:
                identity = next(iter(self._idle))
                dropped.append(self._idle.pop(identity))
                del self._expansions[identity]
        return dropped

    def _expansion_of(self, source: int, compression: str) -> _Expansion:
        """Return what there is of the file that is open as *source*, or a new one; it has one more user."""
        new = _Expansion(self._files, source, compression)  # which closes its descriptor if it is not needed
        with self._lock:
            expansion = self._expansions.setdefault(new.identity, new)
            expansion.users += 1
            self._idle.pop(new.identity, None)
        return expansion

    def _release(self, expansion: _Expansion) -> None:
        with self._lock:
            expansion.users -= 1
            if not expansion.users:
                self._idle[expansion.identity] = expansion

    def close(self, descriptor: int) -> None:
        """See `FileOperations`."""
        with self._lock:
            expansion = self._open.pop(descriptor, None)
        if expansion is None:
            self._files.close(descriptor)
        else:
            os.close(descriptor)
            self._release(expansion)

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        """See `FileOperations`."""
        expansion = self._open.get(descriptor)
        if expansion is None:
            return self._files.read(descriptor, length, offset)
        return expansion.read(length, offset)

    def size(self, descriptor: int, most: int = MAX_SEGMENT_SIZE) -> int:
        """See `FileOperations`."""
        expansion = self._open.get(descriptor)
        return self._files.size(descriptor) if expansion is None else expansion.length(most)

    def identity(self, descriptor: int) -> Identity:
        """See `FileOperations`: that of the compressed file."""
        expansion = self._open.get(descriptor)
        return self._files.identity(descriptor) if expansion is None else expansion.identity

    def sync(self, descriptor: int) -> None:
        """See `FileOperations`."""
        expansion = self._open.get(descriptor)
        if expansion is None:
            self._files.sync(descriptor)
        else:
            expansion.sync()

    def list_directory(self, path: str) -> list[str]:
        """See `FileOperations`."""
        return self._files.list_directory(path)

    def path_identity(self, path: str) -> Identity:
        """See `FileOperations`."""
        return self._files.path_identity(path)

    def sync_directory(self, path: str) -> None:
        """See `FileOperations`."""
        self._files.sync_directory(path)
