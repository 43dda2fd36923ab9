"""
Can this start work?  Looked at before anything is opened, in the words of the settings.

What is found wrong here ends twistd with one line, before it has become a daemon
and has written a pid file; what goes wrong later can only be logged.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory

from walsender.errors import ConfigurationError, WalFileError
from walsender.replication_slots import REAL_SLOT_FILES, SlotStorage
from walsender.source.running_server import running_server
from walsender.state_lock import StateLock
from walsender.wal import (
    DecompressingFiles,
    FileOperations,
    VerifiedWal,
    WalIdentity,
    find_current_end,
    scan_directory,
    verify_wal,
)
from walsender.wire.dialect import FIRST_VERSION

if TYPE_CHECKING:
    from twisted.internet.interfaces import IStreamServerEndpoint
    from twisted.python.failure import Failure

    from walsender.settings import Settings

_PROBED: Final = frozenset({"tcp", "tcp6", "unix"})
_BARE_PORT: Final = re.compile(r"(?:([0-9.]+):)?([0-9]+)", re.ASCII)


def check_directory(settings: Settings, files: FileOperations) -> WalIdentity | None:
    """
    Return whose WAL is in ``wal_directory``; ``None`` for a relay that has none yet.

    :raises walsender.errors.ConfigurationError: it cannot be served.
    """
    path = settings.wal_directory
    where = f'(parameter "wal_directory" from {settings.sources["wal_directory"]})'
    _check_is_there(settings)
    _refuse_running_server(path, where)
    try:
        directory = scan_directory(DecompressingFiles(files), path)
    except WalFileError as error:
        raise ConfigurationError(f"{error.message} {where}") from error
    identity = directory.identity
    if identity is None and settings.primary_conninfo:
        return None
    if identity is None:
        reason = next((f": {error.message}" for error in directory.unusable.values()), "")
        raise ConfigurationError(f'WAL directory "{path}" contains no WAL segment{reason} {where}')
    if identity.format.version < FIRST_VERSION and settings.protocol_dialect == "auto":
        raise ConfigurationError(
            f'WAL directory "{path}" holds WAL of PostgreSQL {identity.format.name}, which had no streaming '
            f"replication; --protocol-dialect=8.5 serves it to clients of the first walsender {where}"
        )
    return identity


def _check_is_there(settings: Settings) -> None:
    path = settings.wal_directory
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
    except OSError as error:
        reason = f'could not open WAL directory "{path}": {error.strerror}'
        refusal = wal_directory_error(settings, ConfigurationError(reason))
        if settings.primary_conninfo and error.errno == errno.ENOENT:
            refusal = ConfigurationError(f"{refusal.message}. Create it; a relay fills an empty directory.")
        raise refusal from error


def check_wal(settings: Settings, files: FileOperations) -> VerifiedWal | None:
    """
    Check every WAL record as far as ``verify_wal`` asks for it, and return what was found to be good.

    This may take minutes: where a reactor runs, call it in a thread.

    :raises walsender.errors.ConfigurationError: a record is bad, or there is nothing to check.
    """
    if settings.verify_wal is None:
        return None
    path = settings.wal_directory
    where = f'(parameter "verify_wal" from {settings.sources["verify_wal"]})'
    files = DecompressingFiles(files)
    try:
        directory = scan_directory(files, path)
        end = find_current_end(files, directory)
        if end is None or directory.identity is None:
            raise ConfigurationError(f'WAL directory "{path}" contains no valid WAL {where}')
        if end.damaged:
            raise ConfigurationError(f"{end.damaged[0]} {where}")
        geometry = directory.identity.geometry
        earliest = directory.earliest(end.timeline, end.position)
        start = geometry.position(settings.verify_wal) or earliest
        if not earliest <= start <= end.position:
            raise ConfigurationError(
                f'WAL directory "{path}" has no WAL at {settings.verify_wal}: it goes from '
                f"{geometry.lsn(earliest)} to {geometry.lsn(end.position)} on timeline {end.timeline} {where}"
            )
        return verify_wal(files, directory, end, start)
    except WalFileError as error:
        raise ConfigurationError(f'WAL in "{path}" is not good: {error.message} {where}') from error


def _refuse_running_server(path: str, where: str) -> None:
    server = running_server(path)
    if server is not None:
        raise ConfigurationError(
            f'WAL directory "{path}" belongs to a running PostgreSQL server (process {server.process_id} by '
            f'"{server.pid_file}"), which recycles its files; archive its WAL with '
            f"pg_receivewal and serve that directory {where}"
        )


class _ListeningProbe:
    """
    The part of a reactor that endpoints listen with; binds, and lets go of all when closed.

    An endpoint keeps its address to itself, and a port that was opened through
    the real reactor is closed only when that runs.  What is bound stays so until
    the last endpoint is checked, since two of them may be in each other's way.
    """

    def __init__(self) -> None:
        self._bound: list[socket.socket] = []
        self._paths: set[str] = set()

    def close(self) -> None:
        for bound in self._bound:
            bound.close()

    def listenTCP(self, port: int, factory: Factory, backlog: int = 50, interface: str = "") -> None:
        family = socket.AF_INET6 if ":" in interface else socket.AF_INET
        probe = socket.socket(family, socket.SOCK_STREAM)
        self._bound.append(probe)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((interface, port))
            probe.listen(1)
        except OSError as error:
            raise CannotListenError(interface, port, error) from error

    def listenUNIX(
        self, address: str, factory: Factory, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> None:
        try:
            self._check_path(address, leftover_is_removed=wantPID)
        except OSError as error:
            raise CannotListenError("unix", address, error) from error
        self._paths.add(address)

    def _check_path(self, address: str, *, leftover_is_removed: bool) -> None:
        """Find out without making a file: nobody would remove it if we were killed now."""
        if not Path(address).is_absolute():
            raise OSError("its path is relative, and twistd changes its directory before it is used")
        used = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        if address in self._paths:
            raise used
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe,
            contextlib.suppress(FileNotFoundError, ConnectionRefusedError),
        ):
            probe.connect(address)
            raise used
        # Twisted removes the socket of a process that was killed if that has left its lock as well.
        removed = leftover_is_removed and Path(f"{address}.lock").is_symlink()
        if os.path.lexists(address) and not removed:
            raise used
        if not os.access(Path(address).parent, os.W_OK | os.X_OK):
            raise OSError("its directory is missing or cannot be written to")


def endpoints(settings: Settings, reactor: object) -> list[tuple[str, IStreamServerEndpoint]]:
    """
    Return the endpoints of ``listen`` with their descriptions.

    :raises walsender.errors.ConfigurationError: a description is none.
    """
    return [(one, _endpoint(settings, "listen", one, reactor)) for one in settings.listen]


def http_endpoints(settings: Settings, reactor: object) -> list[tuple[str, IStreamServerEndpoint]]:
    """
    Return the endpoint of ``http`` with its description, if there is one.

    :raises walsender.errors.ConfigurationError: the description is none.
    """
    description = settings.http
    if not description:
        return []
    return [(description, _endpoint(settings, "http", description, reactor))]


def _endpoint(settings: Settings, parameter: str, description: str, reactor: object) -> IStreamServerEndpoint:
    whole = with_backlog(settings, description) if parameter == "listen" else description
    try:
        made: IStreamServerEndpoint = serverFromString(reactor, whole)
    except Exception as error:  # each endpoint type complains in its own way
        reason = str(error)
        if isinstance(error, LookupError) and description.startswith("systemd:"):
            reason = "systemd has passed no such socket"
        raise ConfigurationError(
            f'invalid value for parameter "{parameter}" from {settings.sources[parameter]}: '
            f'"{description}" is no server endpoint ({reason}){_meant(description)}'
        ) from error
    return made


def _meant(description: str) -> str:
    """Return the hint for a port, or address and port, that stands alone."""
    bare = _BARE_PORT.fullmatch(description)
    if bare is None:
        return ""
    address, port = bare.groups()
    interface = f":interface={address}" if address else ""
    return f'. Perhaps you meant "tcp:{port}{interface}".'


def with_backlog(settings: Settings, description: str) -> str:
    """
    Return an endpoint's description with room for all clients to connect at once, unless it says how much.

    Twisted's default is 50, and the kernel lets those that find no room wait for seconds.

    Source: PostgreSQL, src/backend/libpq/pqcomm.c, ListenServerPort.
    """
    if description.partition(":")[0] not in _PROBED or ":backlog=" in description:
        return description
    return f"{description}:backlog={max(50, 2 * settings.max_wal_senders)}"


def listen_error(
    settings: Settings, description: str, failure: Failure, parameter: str = "listen"
) -> ConfigurationError:
    """Return the error for an endpoint, given in *parameter*, that cannot be listened on."""
    reason = getattr(failure.value, "socketError", failure.value)
    text = getattr(reason, "strerror", None) or reason
    return ConfigurationError(
        f'could not listen on "{description}": {text} '
        f'(parameter "{parameter}" from {settings.sources[parameter]})'
    )


def check_locks(settings: Settings) -> None:
    """
    Check that the directories that are written to from the start can be, and nobody else does.

    :raises walsender.errors.ConfigurationError: it cannot.
    """
    if settings.primary_conninfo:
        _check_is_there(settings)  # first: the state directory may be below it
    if state_directory_needed(settings):
        try:
            StateLock.check(settings.state_directory)
        except ConfigurationError as error:
            raise state_directory_error(settings, error) from error
    if settings.primary_conninfo:
        try:
            StateLock.check(settings.wal_directory, "WAL")
        except ConfigurationError as error:
            raise wal_directory_error(settings, error) from error


def check_pid_file(path: str) -> None:
    """
    Check that twistd could write its pid file, which it does when it can only fail with a traceback.

    :param path: absolute; empty: there is none.
    :raises walsender.errors.ConfigurationError: it could not.
    """
    if not path:
        return
    needed = Path(path) if os.path.lexists(path) else Path(path).parent
    if not needed.exists():
        reason = os.strerror(errno.ENOENT)
    elif not os.access(needed, os.W_OK if needed == Path(path) else os.W_OK | os.X_OK):
        reason = os.strerror(errno.EROFS if os.statvfs(needed).f_flag & os.ST_RDONLY else errno.EACCES)
    else:
        return
    raise ConfigurationError(
        f'could not write pid file "{path}": {reason}. '
        "Give twistd --pidfile=FILE before the word walsender, or --pidfile= for none."
    )


def state_directory_needed(settings: Settings) -> bool:
    """
    Return whether ``state_directory`` is used from the start: it was set, there are slots in it, or this
    is a relay, which must know of all slots before it removes any WAL.

    The default one is otherwise made only when there is something to put into it.

    :raises walsender.errors.ConfigurationError: that cannot be found out.
    """
    if settings.primary_conninfo or settings.sources["state_directory"] != "default":
        return True
    try:
        return SlotStorage(REAL_SLOT_FILES, settings.state_directory).holds_slots()
    except OSError as error:
        if not os.path.isdir(settings.state_directory):  # noqa: PTH112 -- never raises
            return False  # so the WAL directory cannot be entered, which is complained of elsewhere
        raise state_directory_unusable(settings, error) from error


def state_directory_unusable(settings: Settings, error: OSError) -> ConfigurationError:
    """Return the error for a ``state_directory`` that the operating system refuses."""
    reason = f'could not use state directory "{settings.state_directory}": {error.strerror}'
    return state_directory_error(settings, ConfigurationError(reason))


def state_directory_error(settings: Settings, error: ConfigurationError) -> ConfigurationError:
    """Return *error* with the place where ``state_directory`` was set."""
    source = settings.sources["state_directory"]
    return ConfigurationError(f'{error.message} (parameter "state_directory" from {source})')


def wal_directory_error(settings: Settings, error: ConfigurationError) -> ConfigurationError:
    """Return *error* with the place where ``wal_directory`` was set."""
    return ConfigurationError(
        f'{error.message} (parameter "wal_directory" from {settings.sources["wal_directory"]})'
    )


def check_endpoints(settings: Settings) -> None:
    """
    Check that every endpoint of ``listen``, and that of ``http``, could be listened on now.

    Sockets from systemd are bound already, and endpoints that plugins add are not known here.

    :raises walsender.errors.ConfigurationError: one could not.
    """
    with contextlib.closing(_ListeningProbe()) as probe:
        for parameter, found in (
            ("listen", endpoints(settings, probe)),
            ("http", http_endpoints(settings, probe)),
        ):
            for description, endpoint in found:
                if description.partition(":")[0] not in _PROBED:
                    continue
                failures: list[Failure] = []
                endpoint.listen(Factory()).addErrback(failures.append)
                if failures:
                    raise listen_error(settings, description, failures[0], parameter)
