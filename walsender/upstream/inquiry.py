"""
What has to be asked of an upstream before WAL comes from it.

Questions and answers only; what an answer means for what is held is `walsender.upstream.receiver`'s affair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from walsender.errors import WalsenderError
from walsender.lsn import LSN, Geometry
from walsender.upstream.interfaces import IUpstreamSession, Row, UpstreamError
from walsender.wal import history_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from twisted.internet.defer import Deferred

_RESERVES_WAL: Final = 90600
_SHOWS: Final = 100000
_READS_SLOTS: Final = 150000
_DUPLICATE_OBJECT: Final = "42710"
_MEGABYTE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class System:
    """What IDENTIFY_SYSTEM says."""

    identifier: int
    timeline: int
    flush_lsn: LSN


class Inquiry:
    """
    Asks one session, which is at command level.

    All fail with `UpstreamError`.

    :param answer: waits for the answer to a command.
    """

    def __init__(self, session: IUpstreamSession, answer: Callable[[Deferred[Any]], Awaitable[Any]]) -> None:
        self._session = session
        self._answer = answer

    async def system(self) -> System:
        """Return who the upstream is, and where."""
        row = await self._row("IDENTIFY_SYSTEM", 3)
        try:
            return System(int(row[0] or b""), int(row[1] or b""), LSN.parse((row[2] or b"").decode()))
        except (ValueError, WalsenderError) as error:
            raise UpstreamError("the upstream's answer to IDENTIFY_SYSTEM cannot be read") from error

    async def geometry(self) -> Geometry | None:
        """Return how the upstream cuts its WAL; ``None`` if it is too old to say (SHOW is of version 10)."""
        if self._session.server_version < _SHOWS:
            return None
        size = _size((await self._row("SHOW wal_segment_size", 1))[0])
        page_size = _size((await self._row("SHOW wal_block_size", 1))[0])
        try:
            return Geometry.contiguous(size, page_size)
        except ValueError as error:
            raise UpstreamError(f"the upstream's WAL cannot be used: {error}") from error

    async def history_file(self, timeline: int) -> bytes:
        """Return the content of a timeline's history file."""
        row = await self._row(f"TIMELINE_HISTORY {timeline}", 2)
        name = history_name(timeline)
        if row[0] != name.encode():
            raise UpstreamError(f"the upstream sent another history file than {name}")
        return row[1] or b""

    async def create_slot(self, name: str) -> bool:
        """Make a physical slot with its WAL reserved; return whether there was none of that name."""
        command = f'CREATE_REPLICATION_SLOT "{name}" PHYSICAL'
        if self._session.server_version >= _RESERVES_WAL:
            command += " RESERVE_WAL"
        try:
            await self._answer(self._session.execute(command))
        except UpstreamError as error:
            if error.sqlstate != _DUPLICATE_OBJECT:
                raise
            return False
        return True

    async def slot_lsn(self, name: str) -> LSN | None:
        """Return from where on a slot keeps WAL; ``None`` if it keeps none, or the upstream cannot say."""
        if self._session.server_version < _READS_SLOTS:
            return None
        row = await self._row(f'READ_REPLICATION_SLOT "{name}"', 3)
        return None if row[1] is None else LSN.parse(row[1].decode())

    async def _row(self, command: str, columns: int) -> Row:
        """Return the one row that *command* gives."""
        rows = await self._answer(self._session.execute(command))
        if len(rows) != 1 or len(rows[0]) < columns:
            raise UpstreamError(
                f"the upstream's answer to {command.split(maxsplit=1)[0]} has the wrong shape"
            )
        row: Row = rows[0]
        return row


def _size(value: bytes | None) -> int:
    """Return how many bytes a size means that SHOW gives: ``16MB``, ``1GB``, ``8192``."""
    text = (value or b"").decode("ascii", "replace")
    number = text.rstrip("kMGB")
    try:
        return int(number) * {"": 1, "MB": _MEGABYTE, "GB": _MEGABYTE << 10}[text[len(number) :]]
    except (ValueError, KeyError):
        raise UpstreamError(f'the upstream\'s size "{text}" cannot be read') from None
