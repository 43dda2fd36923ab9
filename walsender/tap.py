"""
``twistd walsender``: the command line, and the service made from it.

The command line is only collected here; what it means is said in
`walsender.settings`.  A start that cannot work ends here with one line on standard
error and exit status 1, before twistd becomes a daemon and writes a pid file.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from twisted.logger import ILogObserver
from twisted.python import usage
from twisted.python.components import Componentized

import twisted
from walsender.clocks import wait_steadily
from walsender.ending import end_within
from walsender.errors import ConfigurationError
from walsender.own_version import own_version
from walsender.preflight import check_endpoints, check_locks, check_pid_file
from walsender.server_log import ServerLog, place_for
from walsender.service import WalSenderService
from walsender.settings import Option, Settings, help_text, options
from walsender.settings.values import nearest, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.application.service import IServiceCollection
    from twisted.internet.defer import Deferred

    from walsender.sender import IServerReactor


class Options(usage.Options):
    """
    The command line of ``twistd walsender``.

    :ivar given: option names and values, in the order given.
    :ivar assignments: the arguments of ``-c``.
    """

    def __init__(self) -> None:
        self.given: list[tuple[str, str]] = []
        self.assignments: list[str] = []
        usage.Options.__init__(self)

    def parseOptions(self, options: list[str] | None = None) -> None:
        """Parse; a wrong option is one line, not all of the usage text."""
        try:
            usage.Options.parseOptions(self, options)
        except usage.UsageError as error:
            unknown = re.fullmatch(r"option --(\S+) not recognized", str(error))
            hint = unknown and nearest(unknown[1], (option.name for option in _OPTIONS), "--")
            raise SystemExit(_one_line(f"{error}. {hint}" if hint else str(error))) from None

    def parseArgs(self, *args: str) -> None:
        """Refuse arguments that are no options."""
        if args:
            raise usage.UsageError(f'unexpected argument "{args[0]}"')

    def __str__(self) -> str:
        """Return the help."""
        return help_text()

    def opt_version(self) -> None:
        """Print the version, then exit."""
        sys.stdout.write(f"walsender {own_version()}\n")
        raise SystemExit(0)

    def opt_c(self, assignment: str) -> None:
        """NAME=VALUE: set any parameter, as postgres takes it."""
        self.assignments.append(assignment)


def _add_option(option: Option) -> None:
    def collect(self: Options, value: str) -> None:
        self.given.append((option.name, value))

    collect.__doc__ = f"{option.metavar}: {option.description}"
    setattr(Options, "opt_" + option.name.replace("-", "_"), collect)
    if option.short is not None:
        setattr(Options, f"opt_{option.short}", collect)


_OPTIONS: Final = options()
for _option in _OPTIONS:
    _add_option(_option)


PATIENCE: Final = 5.0
"""Seconds that threads have to end when all else has."""


class _Program(WalSenderService):
    """
    The service as a program of its own: it has twistd's log.

    :param log: ``None``: twistd has an observer that somebody has chosen.
    :param remove_pid_file: for an end at which twistd does not.
    """

    def __init__(
        self,
        log: ServerLog | None,
        remove_pid_file: Callable[[], None],
        reactor: IServerReactor,
        settings: Settings,
        **options: Any,
    ) -> None:
        self._server_log = log
        self._remove_pid_file = remove_pid_file
        WalSenderService.__init__(self, reactor, settings, configured=self._configure_log, **options)

    def privilegedStartService(self) -> None:
        """See `WalSenderService`."""
        self.log.info(
            "starting walsender {version} with Twisted {twisted} on Python {python}",
            version=own_version(),
            twisted=twisted.__version__,
            python=".".join(map(str, sys.version_info[:3])),
        )
        WalSenderService.privilegedStartService(self)

    def stopService(self) -> Deferred[None]:
        """See `WalSenderService`; after it nothing but the reactor is left to end."""
        stopped: Deferred[None] = WalSenderService.stopService(self)
        return stopped.addCallback(lambda _: end_within(PATIENCE, self._leave))

    def _leave(self) -> None:
        self.log.warn("a file system does not answer; ending without waiting for it")
        self._remove_pid_file()

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """See `twisted.application.service.IService`; twistd then asks the application for its observer."""
        WalSenderService.setServiceParent(self, parent)  # type: ignore[no-untyped-call]
        if self._server_log is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._server_log)  # type: ignore[no-untyped-call]

    def _configure_log(self, settings: Settings) -> None:
        if self._server_log is not None:
            self._server_log.configure(
                destination=settings.log_destination,
                line_prefix=settings.log_line_prefix,
                min_messages=settings.log_min_messages,
                min_error_statement=settings.log_min_error_statement,
                asked_for=settings.sources["log_line_prefix"] != "default",
            )


def makeService(config: Options) -> WalSenderService:
    """
    Return the service that *config* asks for; nothing is opened yet.

    :raises SystemExit: it cannot work; the message is the one line to print.
    """
    from twisted.internet import reactor

    wait_steadily(reactor)

    # twistd changes to --rundir later; what is relative stays relative to here.
    directory = str(Path.cwd())

    def load() -> Settings:
        return Settings.load(config.given, assignments=config.assignments, directory=directory)

    try:
        settings = load()
        check_locks(settings)
        check_endpoints(settings)
        twistd: Mapping[str, Any] = config.parent or {}
        if not twistd.get("chroot"):  # where the path would mean another file
            check_pid_file(twistd.get("pidfile") or "")
        place = place_for(twistd, reactor.callFromThread)  # type: ignore[attr-defined]
        log = None if place is None else ServerLog(place)
        return _Program(
            log,
            _pid_file_remover(config),
            cast("IServerReactor", reactor),
            settings,
            handle_signals=True,
            reload=load,
            give_up=_giver_up(config),
        )
    except ConfigurationError as error:
        raise SystemExit(_one_line(error.message)) from None
    except KeyboardInterrupt:  # while WAL is being checked
        raise SystemExit(_one_line("interrupted before the start")) from None


def _pid_file_remover(config: Options) -> Callable[[], None]:
    """Return what removes twistd's pid file, which it does itself at an ordinary end only."""

    def remove() -> None:
        twistd: Mapping[str, Any] = config.parent or {}
        if twistd.get("pidfile"):
            with contextlib.suppress(OSError):  # as an ordinary user, perhaps not in that directory
                Path(twistd["pidfile"]).unlink()

    return remove


def _giver_up(config: Options) -> Callable[[str], NoReturn]:
    """Return what ends twistd when it has already begun."""
    remove_pid_file = _pid_file_remover(config)

    def give_up(message: str) -> NoReturn:
        twistd: Mapping[str, Any] = config.parent or {}
        remove_pid_file()
        line = _one_line(message)
        if twistd.get("statusPipe") is not None:
            # A daemon has no standard error any more.  Who started it reads here and
            # shows what stands behind the first two of at most a hundred bytes.
            os.write(twistd["statusPipe"], f"1 {line}".encode(errors="replace")[:100])
        # What is called standard error goes to the log by now.
        if sys.__stderr__ is not None:
            sys.__stderr__.write(f"{line}\n")
        raise SystemExit(1)

    return give_up


def _one_line(message: str) -> str:
    """Return what to print; names of files may hold anything, and what does not print is escaped."""
    return f"walsender: {printable(message)}"
