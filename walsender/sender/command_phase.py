"""What a client says between its streams: one message at a time, each with its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.python.failure import Failure

from walsender.errors import InvalidMessage
from walsender.sender.commands import check_not_ahead, check_physical, check_start
from walsender.wire import (
    ExtendedQuery,
    FunctionCall,
    IdentifySystem,
    Query,
    ReadyForQuery,
    StartReplication,
    Sync,
    TimelineHistory,
)
from walsender.wire.dialect import ModernDialect

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from walsender.replication_slots import HeldSlot
    from walsender.sender.connection_log import ConnectionLog
    from walsender.sender.factory import WalSenderFactory
    from walsender.sender.startup import Session
    from walsender.wire import Command, FrontendMessage

READY: Final = ReadyForQuery().encode()


class ICommandHost(Protocol):
    """What the command phase needs of the protocol that it belongs to."""

    log: ConnectionLog

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is read or written."""

    def write(self, data: bytes) -> None:
        """Send *data* to the client."""

    def failed(self, failure: Failure) -> None:
        """Tell the client of an error; ReadyForQuery follows unless the phase is skipping to Sync."""

    def input_wanted(self) -> None:
        """A command that had to wait has been answered: the next may be read."""

    def begin_stream(self, timeline: int, start: int, slot: HeldSlot | None, *, held: bool) -> None:
        """The message that begins the stream is written; go on with the stream itself."""


class CommandPhase:
    """
    Answers one client's commands.

    :ivar skipping_to_sync: after an error of the extended protocol nothing is answered until Sync.
    """

    def __init__(self, host: ICommandHost, factory: WalSenderFactory, session: Session) -> None:
        self._host = host
        self._factory = factory
        self._session = session
        self._answer: Deferred[Any] | None = None  # of the command that waits for something
        self.skipping_to_sync = False

    @property
    def is_waiting(self) -> bool:
        """Whether a command waits for a disk or for other sessions."""
        return self._answer is not None

    @property
    def ready(self) -> bytes:
        """ReadyForQuery: nothing is ever in a transaction here."""
        return READY

    def cancel(self) -> None:
        """Wait for a slot no longer."""
        self._factory.slots.cancel_wait(self._session.entry.process_id)

    def close(self) -> None:
        """See `walsender.sender.interfaces.IConversation`: what waits learns of it when it is done."""

    def received(self, message: FrontendMessage) -> None:
        """
        Answer *message*.

        :raises WalsenderError: it is refused.
        """
        if isinstance(message, Sync):
            self.skipping_to_sync = False
            self._host.write(READY)
        elif self.skipping_to_sync:
            return
        elif isinstance(message, Query):
            self._execute(message.text)
        elif isinstance(message, ExtendedQuery):
            self.skipping_to_sync = True
            raise InvalidMessage("extended query protocol not supported in a replication connection")
        elif isinstance(message, FunctionCall):
            raise InvalidMessage("fastpath function calls not supported in a replication connection")
        # What is left (Flush, late messages of COPY) asks for no answer.

    def _execute(self, text: bytes) -> None:
        command = self._factory.dialect.parse_command(text)
        # What cannot be read is in its error, as far as PostgreSQL says it.
        self._host.log.statement = text
        self._host.log.command(text)
        found = self._find_history(command)
        if found is None:
            self._perform(command)
        else:
            self._answer = found
            found.addBoth(self._history_sought, command)

    def _find_history(self, command: Command) -> Deferred[None] | None:
        """Return what a command must wait for that tells of timelines, if a history is missing."""
        if isinstance(command, TimelineHistory):
            return self._factory.source.find_history(command.timeline)
        if isinstance(command, IdentifySystem | StartReplication):
            return self._factory.source.find_history()
        return None

    def _history_sought(self, result: Failure | None, command: Command) -> None:
        """Answer a command with what is known now."""
        self._answer = None
        try:
            if isinstance(result, Failure):
                result.raiseException()
            if not self._host.is_closed:
                self._perform(command)
        except Exception:  # noqa: BLE001 -- as in any other command
            self._host.failed(Failure())
        self._host.input_wanted()

    def _perform(self, command: Command) -> None:
        if isinstance(command, StartReplication):
            self._start_replication(command)
            return
        answer = self._session.answers.answer(command)
        if isinstance(answer, bytes):
            self._complete(answer + READY)
        else:
            self._answer = answer
            answer.addBoth(self._answered)

    def _answered(self, result: bytes | Failure) -> None:
        """A command that had to wait is done."""
        self._answer = None
        if isinstance(result, Failure):
            self._host.failed(result)
        elif not self._host.is_closed:
            self._complete(result + READY)
        self._host.input_wanted()

    def _complete(self, answer: bytes) -> None:
        self._host.log.statement = b""
        self._host.write(answer)

    def _start_replication(self, command: StartReplication) -> None:
        source, dialect = self._factory.source, self._factory.dialect
        check_physical(command)
        slot = None if command.slot is None else self._acquire(command.slot)
        # From here on an error takes the slot away again, as any error does.
        timeline, start, end = check_start(command, source)
        if end.next_timeline is not None and start == end.position:
            assert isinstance(dialect, ModernDialect), "before 9.3 there is the current timeline only"
            if slot is not None:
                slot.release()
            self._complete(dialect.stream_result(end.next_timeline, source.geometry.lsn(start)))
            return
        self._host.write(dialect.start_response())
        held = not dialect.waits_for_wal and check_not_ahead(command, source, end)
        self._host.begin_stream(timeline, start, slot, held=held)

    def _acquire(self, name: str) -> HeldSlot:
        """
        Claim a slot.

        :raises WalsenderError: it cannot be had, or is of no more use.
        """
        slot = self._factory.slots.acquire(name, self._session.entry.process_id)
        if slot.invalidation_reason:
            dialect = self._factory.dialect
            assert isinstance(dialect, ModernDialect), "no grammar before 9.4 has slots"
            error = dialect.invalidated_slot(name, slot.invalidation_reason)
            if error is not None:
                raise error
        return slot
