"""`Relay`: one machine with a disk, on which the program starts, dies and starts again."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from twisted.internet.task import deferLater

from walsender.auth import LocalAuthorizer
from walsender.errors import WalFileError, WalsenderError
from walsender.replication_slots import ReplicationSlots, SlotStorage
from walsender.sender import WalSenderFactory
from walsender.simulate.client import Connector
from walsender.simulate.disk import PowerLost, SimulatedDisk
from walsender.simulate.files import ProcessFiles, SlotFilesOnDisk
from walsender.simulate.ledger import Broken, Ledger
from walsender.simulate.machine import Process, Threads
from walsender.source.relay import RelaySource
from walsender.upstream import ReceiverSettings, WalReceiver
from walsender.wal import FileKind, parse_file_name
from walsender.wire.dialect import dialect_of

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from walsender.simulate.witness import Server
    from walsender.simulate.world import World

WAL: Final = "/wal"
STATE: Final = "/wal/walsender_state"
RETRY: Final = 2.0  # seconds
TIMEOUT: Final = 10.0  # seconds


class Relay:
    """
    A relay's machine.

    :param upstream: name of the server that it receives from.
    :ivar process: the program, while it runs.
    :ivar factory: takes connections; ``None`` while nobody listens.
    :ivar keeps_page_cache: what ends the program in the middle of an operation is no power failure.
    """

    def __init__(self, world: World, name: str, upstream: str) -> None:
        self._world = world
        self.name = name
        self.upstream = upstream
        self.disk = SimulatedDisk(world.random)
        self.disk.make_directory(WAL)
        self.disk.sync_directory("/")
        self.ledger = Ledger(self.disk, WAL, world.cluster)
        self.disk.changed = self._disk_changed
        self.process: Process | None = None
        self.factory: WalSenderFactory | None = None
        self.slots: ReplicationSlots | None = None
        self.receiver: WalReceiver | None = None
        self.source: RelaySource | None = None
        self.keeps_page_cache = False
        # What is left of programs that were killed: were it freed now, it would come to life for a moment.
        self._remains: list[tuple[Process, object, object, object]] = []
        self._files = ProcessFiles(self.disk)
        # What standbys were told, over all lives of the program.
        self.server: Server = world.server(self)

    def start(self) -> None:
        """Start the program."""
        world = self._world
        process = self.process = Process(world.clock, world.random, self._died_inside)
        files = self._files = ProcessFiles(self.disk)
        run_in_thread = Threads(process, one_by_one=False)
        slot_files = SlotFilesOnDisk(self.disk)
        storage = SlotStorage(slot_files, STATE, lambda: slot_files.make_directory(STATE))
        self.slots = ReplicationSlots(storage, 10, process.reactor, run_in_thread)
        try:
            process.run(self.slots.load)
        except PowerLost:
            return
        except (OSError, WalsenderError) as error:
            world.note(f"{self.name} does not start: {error}")
            self.stop()
            world.clock.callLater(RETRY, self.start_if_down)
            return
        self.server.slots_found(self.slots)
        self.source = RelaySource(run_in_thread, Threads(process, one_by_one=True), files, WAL)
        connector = Connector(
            process,
            lambda session: world.dial(session, process, self.upstream),
            lambda: world.witness(self.upstream, self),
            self.name,
        )
        self.receiver = WalReceiver(
            process.reactor,
            connector,
            self.source,
            ReceiverSettings(timeout=TIMEOUT, status_interval=1.0, retry_interval=RETRY),
            jitter=world.random.random,
        )
        self.factory = WalSenderFactory(
            process.reactor,
            self.source,
            dialect_of(world.cluster.server_version, "little"),
            LocalAuthorizer(),
            wal_sender_timeout=TIMEOUT,
            sendfile=False,
            slots=self.slots,
        )
        self._look(process)

    def _look(self, process: Process) -> None:
        assert self.source is not None, "it has been started"
        self.source.start().addCallbacks(
            self._begin, self._cannot_look, callbackArgs=(process,), errbackArgs=(process,)
        ).addErrback(self._world.bug)

    def _begin(self, _: None, process: Process) -> None:
        assert self.receiver is not None, "it has been started"
        if process.alive:
            self.receiver.start()

    def _cannot_look(self, failure: Failure, process: Process) -> None:
        failure.trap(WalFileError)
        self._world.note(f"{self.name} cannot use its directory: {failure.getErrorMessage()}")
        deferLater(process.reactor, RETRY, self._look, process).addErrback(self._world.bug)

    def start_if_down(self) -> None:
        """Start the program if it does not run."""
        if self.process is None:
            self._world.note(f"{self.name} starts")
            self.start()

    def stop(self) -> None:
        """The program is no more; its files are closed, and connections are for the world to end."""
        process, self.process = self.process, None
        if process is not None:
            process.end()
            self._remains.append((process, self.source, self.receiver, self.factory))
        self.factory = None
        if self.slots is not None:
            self.server.slots_left(self.slots)
        self._files.end()

    @property
    def begin(self) -> int:
        """Position from which WAL is held on whatever timeline; 0 if none is."""
        geometry = self._world.cluster.geometry
        numbers: dict[int, list[int]] = {}
        growing = []
        for name in self.disk.names(WAL):
            file = parse_file_name(name)
            if file.kind is FileKind.SEGMENT:
                numbers.setdefault(file.timeline, []).append(file.number(geometry))
            elif file.kind is FileKind.PARTIAL:
                growing.append((file.timeline, file.number(geometry)))
        # Receiving may have begun, failed, and begun elsewhere.
        newest = dict(sorted(growing))
        for timeline, number in newest.items():
            numbers.setdefault(timeline, []).append(number)
        return geometry.segment_start(min(itertools.chain(*numbers.values()), default=0))

    # Ends

    def close(self) -> None:
        """Let go of everything."""
        self.stop()
        self.disk.close()
        for process, *_ in self._remains:
            process.forget()
        self._remains.clear()

    def shut_down(self) -> None:
        """Ask the program to end, as SIGTERM does."""
        process, factory, receiver, slots = self.process, self.factory, self.receiver, self.slots
        if process is None or factory is None or receiver is None or slots is None:
            return
        self.factory = None

        def stopped(_: object) -> None:
            if process.alive:
                self.stop()
                self._world.process_died(process, silently=False)
                self._restart_later()

        process.callLater(2.0, factory.abort)
        done = factory.shut_down()
        done.addCallback(lambda _: slots.stop()).addCallback(lambda _: receiver.stop())
        done.addCallback(stopped).addErrback(self._world.bug)

    def kill(self) -> None:
        """End the program; the machine goes on."""
        process = self.process
        if process is not None:
            self._world.note(f"{self.name} is killed")
            self.stop()
            self._world.process_died(process, silently=False)
            self._restart_later()

    def lose_power(self) -> None:
        """End the machine."""
        process = self.process
        if process is not None:
            self._world.note(f"{self.name} loses power")
            self.stop()
            self._world.process_died(process, silently=True)
            self.disk.lose_power()
            self.server.disk_crashed()
            self._restart_later()

    def _died_inside(self) -> None:
        """The end has come in the middle of an operation on the disk."""
        self.disk.power = None
        if self.keeps_page_cache:
            self.kill()
        else:
            self.lose_power()

    def _restart_later(self) -> None:
        self._world.clock.callLater(self._world.random.uniform(0.05, 3.0), self.start_if_down)

    def _disk_changed(self, operation: str, path: str) -> None:
        directory, _, name = path.rpartition("/")
        if directory != WAL or operation in {"sync", "sync_directory"}:
            return  # which take nothing away
        try:
            self.ledger.changed(name)
        except Broken as broken:
            self._world.broken(f"{self.name}: after {operation} of {path}: {broken}")


__all__ = ["Relay"]
