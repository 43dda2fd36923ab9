"""
`WalSenderService`: all rooms put together, and the only place that knows every one.

Started by twistd in two steps: `privilegedStartService` binds ports, perhaps as
root; `startService`, perhaps no longer as root, begins to follow the directory.
Until the first look at it is done, clients are told to come back.
"""

from __future__ import annotations

import os
import resource
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from walsender.access import Access
from walsender.auth import MOST_THREADS
from walsender.bearing import Bearing
from walsender.clocks import time_of_day
from walsender.console import MAX_SESSIONS, Console, ServerView
from walsender.encryption import Encryption
from walsender.errors import ConfigurationError
from walsender.ports import Ports
from walsender.preflight import (
    check_directory,
    check_wal,
    endpoints,
    http_endpoints,
)
from walsender.reloading import Configuration
from walsender.restore_command import kill_commands
from walsender.sender import IServerReactor, Logged, WalSenderFactory
from walsender.settings.description import describe
from walsender.settings.secrets import without_password
from walsender.signals import SignalHandlers
from walsender.slot_keeping import SlotKeeping
from walsender.source import IWalSubscriber
from walsender.supply import make_supply
from walsender.wal import REAL_FILES
from walsender.wire.dialect import Dialect, FirstDialect, ModernDialect, dialect_of
from walsender.work_threads import WorkThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from twisted.internet.interfaces import IDelayedCall, IStreamServerEndpoint

    from walsender.auth import IAuthorizer
    from walsender.lsn import LSN
    from walsender.settings import Settings
    from walsender.status import StatusSite
    from walsender.supervision import Supervisor
    from walsender.wire.dialect.first import ByteOrder

# How long SIGTERM waits for standbys to take the end of their streams.
PROMPT_SHUTDOWN: Final = 2.0  # seconds

# Threads that send to clients that are far behind.  They wait for clients now and then, so there are more of
# them than cores; what they do between two system calls is done by one of them at a time.
_MOST_PUMPS: Final = 8
_READERS: Final = 8  # threads that wait for a disk; more would only have it seek

# The dialect 8.5 is of the time between 8.4 and 9.0; standbys of 9.3 and later cannot even read its messages.
_NO_SUCH_STANDBY: Final = 90300

# What an empty relay would speak if it spoke to anybody.
_NEWEST: Final = 180000


def make_dialect(protocol_dialect: str, version: int, byte_order: ByteOrder) -> Dialect:
    """Return the dialect that the setting ``protocol_dialect`` asks for over this WAL."""
    if protocol_dialect == "auto":
        return dialect_of(version, byte_order)
    return FirstDialect(version, byte_order)


@implementer(IWalSubscriber)
class WalSenderService(Service):
    """
    Serves one WAL directory, and as a relay fills it.

    :param settings: what `Settings.load` returned.
    :param authorizer: who may come in; by default whom the files say that the settings name.
    :param handle_signals: this is a program of its own: act on SIGHUP, SIGINT, SIGTERM, SIGUSR2 and SIGQUIT,
        show in the process title what is done, and tell systemd, if that has started it.  An embedded
        service does nothing of the kind.
    :param reload: reads the configuration again and returns it, for SIGHUP.
    :param give_up: ends the program with a message when a port or the state directory cannot be had
        in the moment of starting; by default `privilegedStartService` or `startService` raises
        `walsender.errors.ConfigurationError`.
    :param configured: is told the settings that hold, now and after each reload.
    :raises walsender.errors.ConfigurationError: the directory cannot be served.

    With ``verify_wal`` making one takes as long as checking the WAL does.  A program whose reactor runs
    already calls `walsender.preflight.check_wal` in a thread instead, and leaves ``verify_wal`` off here.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IServerReactor,
        settings: Settings,
        *,
        authorizer: IAuthorizer | None = None,
        handle_signals: bool = False,
        reload: Callable[[], Settings] | None = None,
        give_up: Callable[[str], NoReturn] | None = None,
        configured: Callable[[Settings], object] = bool,
    ) -> None:
        self._reactor = reactor
        self._configuration = Configuration(settings, time_of_day(reactor), reload, self._apply)
        self._configured = configured
        configured(settings)
        self._give_up = give_up
        run_in_thread = partial(deferToThreadPool, reactor, reactor.getThreadPool())
        self._access: Access | None = None
        self._threads: list[WorkThreads] = []
        if authorizer is None:
            # A name service that hangs must hold up neither those who are in nor the end.
            door = self._have_threads("walsender-auth", MOST_THREADS)
            self._access = Access(settings, run_in_thread, door.run)
            authorizer = self._access.authorizer
        identity = check_directory(settings, REAL_FILES)
        if identity is not None and (verified := check_wal(settings, REAL_FILES)) is not None:
            self.log.info(
                "verified WAL from {begin} to {end}: {records} records are good",
                begin=identity.geometry.lsn(verified.begin),
                end=identity.geometry.lsn(verified.end),
                records=verified.records,
            )
        self._slot_keeping = SlotKeeping(settings, reactor, run_in_thread, self.log)
        self.slots = self._slot_keeping.slots
        self._supply = make_supply(reactor, settings, self._standbys_need, self.slots, self._oldest_sent)
        self.source = self._supply.source
        # An empty relay does not know yet whose WAL it will have, and lets nobody in before it does.
        dialect: Dialect = ModernDialect(_NEWEST)
        if identity is not None:
            wal = identity.format
            dialect = make_dialect(settings.protocol_dialect, wal.version, wal.byte_order)
        # Several clients that are far behind use all cores; on one core threads would only cost.
        cores = len(os.sched_getaffinity(0))
        pumps = min(2 * cores, _MOST_PUMPS)
        # Who reads at a pace keeps a thread, which slots that are to be saved must not wait for.
        readers = self._have_threads("walsender-read", _READERS)
        self.factory = WalSenderFactory(
            reactor,
            self.source,
            dialect,
            authorizer,
            max_wal_senders=settings.max_wal_senders,
            wal_sender_timeout=settings.wal_sender_timeout,
            authentication_timeout=settings.authentication_timeout,
            sendfile=settings.sendfile,
            cold_read_rate=settings.cold_read_rate << 10,
            slots=self.slots,
            pump=self._have_threads("walsender-pump", pumps).run if cores > 1 else None,
            read=readers.run,
        )
        self._bearing = Bearing(self._supply, self.factory.slot_table, bool(settings.primary_conninfo))
        self.factory.logged = _logged(settings)
        self._encryption = Encryption(settings, run_in_thread, partial(setattr, self.factory, "tls"))
        view = ServerView(
            self.source,
            self.factory.slot_table,
            self.slots,
            started_at=time_of_day(reactor)(),
            settings=lambda: describe(self.settings, self._configuration.waiting),
            receiver=lambda: self._supply.receiving,
            not_receiving=lambda: self._supply.not_receiving,
            availability=self._supply.availability,
            conninfo=lambda: without_password(self.settings.primary_conninfo),
            directory=lambda: self.source.directory,
            configured_at=lambda: self._configuration.read_at,
            timings=self._supply.timings,
            certificate_end=lambda: None if self.factory.tls is None else self.factory.tls.not_after,
        )
        self.factory.console = Console(view, self.factory, run_in_thread, time_of_day(reactor), self.reload)
        if identity is None:
            self.source.subscribe(self)
        elif isinstance(dialect, FirstDialect) and dialect.version >= _NO_SUCH_STANDBY:
            self.log.warn(
                "serving WAL of PostgreSQL {version} in dialect 8.5, which no standby of that version speaks",
                version=identity.format.name,
            )
        self._endpoints = endpoints(settings, reactor)
        self._http: list[tuple[str, IStreamServerEndpoint, StatusSite]] = []
        for description, endpoint in http_endpoints(settings, reactor):
            # It costs some 10 MB, which a server without it need not pay.
            from walsender.status import make_site  # noqa: PLC0415

            site = make_site(reactor, view, run_in_thread, lambda: self.factory.stopping)
            self._http.append((description, endpoint, site))
        self._http_ports = Ports(settings, "http")
        self._ports = Ports(settings, "listen")
        self._listening = False
        self._ending = 0  # how much of the last stop is still under way
        self._signals: SignalHandlers | None = None
        self._supervisor: Supervisor | None = None
        if handle_signals:
            self._signals = SignalHandlers(reactor, self)
            self._supervisor = self._bearing.supervisor(reactor, lambda: self.settings)

    @property
    def settings(self) -> Settings:
        """What holds now."""
        return self._configuration.settings

    # twisted.application.service.IService

    def privilegedStartService(self) -> None:
        """
        Bind the ports.

        :raises walsender.errors.ConfigurationError: one cannot be had, and there is no *give_up*.
        """
        Service.privilegedStartService(self)
        self._listening = True
        refused = [
            *self._ports.open((*endpoint, self.factory) for endpoint in self._endpoints),
            *self._http_ports.open(self._http),
        ]
        for error in refused[:-1]:
            self.log.critical("{error}", error=error.message)
        if refused:
            self._refuse(refused[-1])

    def startService(self) -> None:
        """
        Begin to follow the directory.

        :raises walsender.errors.ConfigurationError: the state directory cannot be had, or what was
            possible for a privileged user is not for this one, and there is no *give_up*.
        """
        Service.startService(self)
        self._bearing.doing = ""
        if self._signals is not None:  # a program of its own: the limit is the process's
            others = MAX_SESSIONS + sum(2 * site.max_connections for *_, site in self._http)
            self.factory.limit_descriptors(_raise_open_file_limit(), others)
        if not self._listening:
            self.privilegedStartService()  # started by hand
        if self._ending:
            self._refuse(ConfigurationError("could not start: what was under way at the stop has not ended"))
        try:
            started = self._begin()
        except OSError as error:
            self._slot_keeping.release()
            self._refuse(ConfigurationError(f"could not start: {error.strerror}"))
        except ConfigurationError as error:
            self._slot_keeping.release()
            self._refuse(error)
        if self._signals is not None:
            self._reactor.callWhenRunning(self._take_signals)
        if self._supervisor is not None:
            self._supervisor.start()
        started.addCallback(self._started)

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """End every stream at its next message boundary, within a bound; fires when all is closed."""
        self.log.info("shutting down")
        Service.stopService(self)
        self._bearing.doing = "shutting down"
        if self._supervisor is not None:
            self._supervisor.stopping()
        yield self._stop_listening()
        timer = self._reactor.callLater(PROMPT_SHUTDOWN, self._out_of_patience)
        yield self.factory.shut_down()
        if timer.active():
            timer.cancel()
        yield self._stop_http()  # until now it has told of the end
        self._stop_threads()
        # A disk that hangs (a network file system) must not hold up the end.  What is under way there keeps
        # its lock until it has ended, or the process has: it may be writing still.
        yield self._for_a_while(self.slots.stop().addCallback(lambda _: self._slot_keeping.release()))
        yield self._for_a_while(self._supply.stop())
        if self._supervisor is not None:
            self._supervisor.stop()
        if self._signals is not None:
            self._signals.service_stopped()

    # What signals ask for

    def drain(self) -> Deferred[None]:
        """
        Let nobody in any more, send everything, wait for the standbys to confirm it.

        Fires when all are gone, at the latest after ``wal_sender_shutdown_timeout``.
        """
        self.log.info("sending all outstanding WAL, then shutting down")
        self._bearing.doing = "sending all outstanding WAL"
        timeout = self.settings.wal_sender_shutdown_timeout
        drained: Deferred[None] = Deferred()

        def out_of_time() -> None:
            self.log.warn(
                "standbys have not confirmed all WAL within wal_sender_shutdown_timeout ({timeout} s)",
                timeout=timeout,
            )
            drained.callback(None)

        timer: IDelayedCall = self._reactor.callLater(timeout, out_of_time)

        def all_gone(_: object) -> None:
            if timer.active():
                timer.cancel()
                drained.callback(None)

        self._stop_listening().addCallback(lambda _: self.factory.shut_down(drain=True)).addCallback(all_gone)
        return drained

    def abort(self) -> None:
        """Drop all connections at once."""
        self.log.info("dropping all connections")
        self.factory.abort()

    def kill_commands(self) -> None:
        """See `walsender.signals.IControllable`."""
        kill_commands()

    def reload(self) -> None:
        """Read the configuration again and take over what can be changed while running."""
        if self._supervisor is not None:
            self._supervisor.reloading()
        self._configuration.reload()
        # As in PostgreSQL these are read again whether their names have changed or not.
        read = [
            self._encryption.reload(self.settings).addErrback(
                lambda failure: self.log.failure("cannot read certificates", failure)
            )
        ]
        if self._access is not None:
            read.append(
                self._access.reload(self.settings).addErrback(
                    lambda failure: self.log.failure("cannot read who may come in", failure)
                )
            )
        if self._supervisor is not None:
            reloaded = self._supervisor.reloaded
            DeferredList(read).addCallback(lambda _: reloaded())

    # Inside

    def _apply(self, new: Settings) -> None:
        """
        Take over what can be changed while running.

        :raises walsender.errors.ConfigurationError: that makes no sense; nothing has changed.
        """
        self._supply.reconfigure(new)
        self.factory.wal_sender_timeout = new.wal_sender_timeout
        self.factory.authentication_timeout = new.authentication_timeout
        self.factory.sendfile = new.sendfile
        self.factory.giving_way.rate = new.cold_read_rate << 10
        self.factory.logged = _logged(new)
        self._configured(new)

    def _standbys_need(self) -> tuple[int, int]:
        return self.factory.slot_table.oldest_transactions()

    def _oldest_sent(self) -> LSN:
        return self.factory.slot_table.oldest_sent()

    def wal_grew(self) -> None:
        """See `walsender.source.IWalSubscriber`: an empty relay has its first WAL."""
        self.source.unsubscribe(self)
        self.factory.dialect = make_dialect(
            self.settings.protocol_dialect, self.source.server_version, self.source.byte_order
        )

    def _out_of_patience(self) -> None:
        self.log.warn("clients have not read to the end of their streams within {s} s", s=PROMPT_SHUTDOWN)
        self.factory.abort()

    def _begin(self) -> Deferred[None]:
        """
        Start whatever works in here; fires when WAL can be served.

        :raises walsender.errors.ConfigurationError: something cannot be had.
        :raises OSError: there is no descriptor left, or no thread.
        """
        for threads in self._threads:
            threads.start()
        # Again: twistd may have changed user or root directory since.
        check_directory(self.settings, REAL_FILES)
        self._slot_keeping.load()
        return self._supply.start()

    def _for_a_while(self, ending: Deferred[Any]) -> Deferred[Any]:
        """Return what fires when *ending* does, or when that takes too long; then it goes on by itself."""
        waiting: Deferred[Any] = Deferred()
        self._ending += 1

        def ended(result: object) -> None:
            self._ending -= 1
            if not waiting.called:
                waiting.callback(result)
            elif isinstance(result, Failure):
                self.log.failure("stopping failed", result)

        ending.addBoth(ended)
        return waiting.addTimeout(PROMPT_SHUTDOWN, self._reactor, onTimeoutCancel=lambda *_: None)

    def _take_signals(self) -> None:
        assert self._signals is not None, "they are ours"
        if self.running:  # it may have been stopped before the reactor ran
            self._signals.install()

    def _refuse(self, error: ConfigurationError) -> NoReturn:
        """Start no further: what was checked before no longer holds."""
        self.log.critical("{error}", error=error.message)
        self._stop_listening()
        self._stop_http()
        self._stop_threads()
        Service.stopService(self)
        if self._give_up is None:
            raise error
        self._give_up(error.message)

    def _started(self, _: None) -> None:
        for address in self._ports.addresses():
            self.log.info("walsender listening on {address}", address=address)
        for address in self._http_ports.addresses():
            self.log.info("metrics and health over HTTP on {address}", address=address)
        if self._supervisor is not None and self.running:
            self._supervisor.ready()

    def _have_threads(self, name: str, count: int) -> WorkThreads:
        """Return threads that work while the service runs."""
        threads = WorkThreads(self._reactor, name, count)
        self._threads.append(threads)
        return threads

    def _stop_threads(self) -> None:
        for threads in self._threads:
            threads.stop()

    def _stop_listening(self) -> Deferred[Any]:
        self._listening = False
        return self._ports.close()

    def _stop_http(self) -> Deferred[Any]:
        for *_, site in self._http:
            site.close()
        return self._http_ports.close()


def _logged(settings: Settings) -> Logged:
    return Logged(settings.log_connections, settings.log_disconnections, settings.log_replication_commands)


def _raise_open_file_limit() -> int:
    """
    Raise the limit of open files as far as we may, and return it.

    Every standby needs a few descriptors; the soft limit is a default for programs that need few.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except ValueError:  # the whole system's limit has been lowered since, or asking is forbidden
            return soft
    return hard if hard >= 0 else sys.maxsize  # RLIM_INFINITY is -1


__all__: Sequence[str] = ("WalSenderService", "make_dialect")
