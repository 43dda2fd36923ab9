"""`Relay`: one machine with a disk, on which the program starts, dies and starts again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from twisted.internet.task import deferLater

from walsender.auth import LocalAuthorizer
from walsender.errors import WalFileError, WalsenderError
from walsender.replication_slots import ReplicationSlots, SlotStorage
from walsender.replication_slots.storage import SLOTS_DIRECTORY
from walsender.retention import WalRemover
from walsender.simulate.client import Connector
from walsender.simulate.disk import PowerLost, SimulatedDisk
from walsender.simulate.files import FetchDirectories, ProcessFiles, SlotFilesOnDisk
from walsender.simulate.ledger import Broken, Ledger
from walsender.simulate.lending import LendingFactory
from walsender.simulate.machine import Process, Threads
from walsender.simulate.retention import Retention, WatchedSource
from walsender.source import Fetching, RelayShelf
from walsender.source.shelves import FETCH_DIRECTORY
from walsender.upstream import ReceiverSettings, UpstreamFetcher, WalReceiver
from walsender.wal import FileKind, parse_file_name
from walsender.wire.dialect import dialect_of

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from walsender.retention import Limits
    from walsender.simulate.witness import Server
    from walsender.simulate.world import World
    from walsender.wal.segment import WalFileName

WAL: Final = "/wal"
FETCHED: Final = f"/wal/{FETCH_DIRECTORY}"
STATE: Final = "/wal/walsender_state"
RETRY: Final = 2.0  # seconds
TIMEOUT: Final = 10.0  # seconds
_WAL: Final = (FileKind.SEGMENT, FileKind.PARTIAL)


class Relay:
    """
    A relay's machine.

    :param upstream: name of the server that it receives from.
    :param limits: how much WAL is kept.
    :param fetches: whether what is not held is fetched from the upstream.
    :ivar has_slot: at its upstream.
    :ivar process: the program, while it runs.
    :ivar factory: takes connections; ``None`` while nobody listens.
    :ivar keeps_page_cache: what ends the program in the middle of an operation is no power failure.
    """

    def __init__(self, world: World, name: str, upstream: str, limits: Limits, *, fetches: bool) -> None:
        self._world = world
        self.limits = limits
        self.fetches = fetches
        self.has_slot = False
        self.name = name
        self.upstream = upstream
        self.disk = SimulatedDisk(world.random)
        self.disk.make_directory(WAL)
        self.disk.sync_directory("/")
        self.ledger = Ledger(self.disk, WAL, world.cluster)
        self.disk.changed = self._disk_changed
        self.process: Process | None = None
        self.factory: LendingFactory | None = None
        self.slots: ReplicationSlots | None = None
        self.receiver: WalReceiver | None = None
        self.source: WatchedSource | None = None
        self.remover: WalRemover | None = None
        self.fetching: Fetching | None = None
        self._upstream: UpstreamFetcher | None = None
        self._shelf: RelayShelf | None = None
        self._leaving: set[WalFileName] = set()  # what has been decided to be removed
        self.keeps_page_cache = False
        # What is left of programs that were killed: were it freed now, it would come to life for a moment.
        self._remains: list[tuple[Process, object, object, object]] = []
        self._files = ProcessFiles(self.disk)
        # What standbys were told, over all lives of the program.
        self.server: Server = world.server(self)
        self.server.may_lose_slots = limits.slots is not None

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
        self.server.slots_found(list(self.slots))
        run_commit = Threads(process, one_by_one=True)
        source = self.source = WatchedSource(run_in_thread, run_commit, files, WAL)
        source.attendant = run_commit
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
            ReceiverSettings(
                self.name if self.has_slot else "",
                create_slot=self.has_slot,
                timeout=TIMEOUT,
                status_interval=1.0,
                retry_interval=RETRY,
            ),
            jitter=world.random.random,
        )
        self.factory = LendingFactory(
            process.reactor,
            self.source,
            dialect_of(world.cluster.server_version, "little"),
            LocalAuthorizer(),
            wal_sender_timeout=TIMEOUT,
            sendfile=False,
            slots=self.slots,
        )
        self.factory.sent = partial(world.count, "messages sent by the thread of the commits")
        self._start_retention(process, source)
        self._shelf = RelayShelf(
            run_in_thread, run_commit, files, WAL, source, scratch=FetchDirectories(self.disk, FETCHED)
        )
        if self.fetches:
            upstream = self._upstream = UpstreamFetcher(
                process.reactor,
                connector,
                run_in_thread,
                files,
                lambda: source.identity,
                timeout=TIMEOUT,
                status_interval=1.0,
            )
            source.fetching = self.fetching = Fetching(
                partial(process.reactor.callLater, 0), self._shelf, source, [upstream]
            )
        self._look(process)

    def _start_retention(self, process: Process, source: WatchedSource) -> None:
        """Let it remove WAL, and look what it removes."""
        slots, factory = self.slots, self.factory
        assert slots is not None, "it has been started"
        assert factory is not None, "it has been started"
        table = factory.slot_table
        broken = self._broken
        retention = Retention(self.limits, self.disk, f"{STATE}/{SLOTS_DIRECTORY}", broken)

        def deciding(first: int) -> None:
            sent = [int(entry.sent_lsn) for entry in table if entry.sent_lsn]
            retention.decided(first, source.flush_position, slots, sent)
            self.ledger.release(set(range(first)))
            names = [parse_file_name(name) for name in self.disk.names(WAL)]
            self._leaving |= {file for file in names if file.kind in _WAL and self._number(file) < first}

        source.deciding = deciding
        source.fetched = self._fetched
        self.remover = WalRemover(process.reactor, source, slots, table.oldest_sent, self.limits)
        source.remove_unneeded = self.remover.make_room

    def _broken(self, what: str) -> None:
        self._world.broken(f"{self.name} {what}")

    def _look(self, process: Process) -> None:
        source, shelf = self.source, self._shelf
        assert source is not None, "it has been started"
        assert shelf is not None, "it has been started"
        shelf.close().addCallback(lambda _: source.start()).addCallbacks(
            self._begin, self._cannot_look, callbackArgs=(process,), errbackArgs=(process,)
        ).addErrback(self._world.bug)

    def _begin(self, _: None, process: Process) -> None:
        assert self.receiver is not None, "it has been started"
        assert self.remover is not None, "it has been started"
        if process.alive:
            self.remover.start()
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
        self.factory = self.remover = self.fetching = self._upstream = self._shelf = None
        self.ledger.leaving.clear()
        self._leaving.clear()
        if self.slots is not None:
            self.server.slots_left(self.slots)
        self._files.end()

    @property
    def begin(self) -> int:
        """Position from which WAL is held without a gap, on whatever timelines; 0 if none is."""
        files = [parse_file_name(name) for name in self.disk.names(WAL)]
        numbers = {self._number(file) for file in files if file.kind in _WAL}
        begin = max(numbers, default=0)
        while begin - 1 in numbers:
            begin -= 1
        return self._world.cluster.geometry.segment_start(begin)

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
        remover, fetching, upstream = self.remover, self.fetching, self._upstream
        if process is None or factory is None or receiver is None or slots is None or remover is None:
            return
        self.factory = None

        def stopped(_: object) -> None:
            if process.alive:
                self.stop()
                self._world.process_died(process, silently=False)
                self._restart_later()

        process.callLater(2.0, factory.abort)
        done = factory.shut_down()
        done.addCallback(lambda _: slots.stop())
        done.addCallback(lambda _: None if fetching is None else fetching.stop())
        done.addCallback(lambda _: None if upstream is None else upstream.stop())
        done.addCallback(lambda _: remover.stop()).addCallback(lambda _: receiver.stop())
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

    def _judge(self, operation: str, name: str) -> None:
        """Look whether a segment that has just been removed was to go."""
        file = parse_file_name(name)
        if file.kind not in _WAL:
            return
        if operation in {"rename", "create"}:
            self._came_back(file)
        elif operation == "remove" and file in self._leaving:
            self._world.count("segments removed")
        elif operation == "remove" and file.kind is FileKind.SEGMENT:
            if name in self.disk.directory(WAL).platter:
                self._broken(f"has removed {name}, which was not decided")
            else:
                self._world.count("names that were not durable, taken back")

    def _fetched(self, name: str) -> None:
        self._world.count("segments fetched")
        self._came_back(parse_file_name(name))

    def _came_back(self, file: WalFileName) -> None:
        """Another decision is needed to remove it."""
        self._leaving.discard(file)
        self.ledger.leaving.discard(self._number(file))

    def _number(self, file: WalFileName) -> int:
        return file.number(self._world.cluster.geometry)

    def _disk_changed(self, operation: str, path: str) -> None:
        directory, _, name = path.rpartition("/")
        if directory != WAL or operation in {"sync", "sync_directory"}:
            return  # which take nothing away
        self._judge(operation, name)
        try:
            self.ledger.changed(name)
        except Broken as broken:
            self._world.broken(f"{self.name}: after {operation} of {path}: {broken}")


__all__ = ["Relay"]
