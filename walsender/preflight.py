"""
Can this start work?  Looked at before anything is opened, in the words of the settings.

What is found wrong here ends twistd with one line, before it has become a daemon
and has written a pid file; what goes wrong later can only be logged.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory

from walsender.errors import ConfigurationError, WalFileError
from walsender.wal import FileOperations, WalDirectory, WalIdentity

if TYPE_CHECKING:
    from twisted.internet.interfaces import IStreamServerEndpoint
    from twisted.python.failure import Failure

    from walsender.settings import Settings

# The dialects between the first one and this version are not spoken yet.
FIRST_MODERN_VERSION: Final = 90300


def check_directory(settings: Settings, files: FileOperations) -> WalIdentity:
    """
    Return whose WAL is in ``wal_directory``.

    :raises walsender.errors.ConfigurationError: it cannot be served.
    """
    path = settings.wal_directory
    where = f'(parameter "wal_directory" from {settings.sources["wal_directory"]})'
    if not Path(path).is_dir():
        raise ConfigurationError(f'WAL directory "{path}" does not exist or is no directory {where}')
    _refuse_running_server(path, where)
    try:
        directory = WalDirectory.scan(files, path)
    except WalFileError as error:
        raise ConfigurationError(f"{error.message} {where}") from error
    identity = directory.identity
    if identity is None:
        reason = next((f": {error.message}" for error in directory.unusable.values()), "")
        raise ConfigurationError(f'WAL directory "{path}" contains no WAL segment{reason} {where}')
    if identity.format.version < FIRST_MODERN_VERSION and settings.protocol_dialect == "auto":
        raise ConfigurationError(
            f'WAL directory "{path}" holds WAL of PostgreSQL {identity.format.name}, whose replication '
            "protocol is not supported; --protocol-dialect=8.5 serves it to clients of the first walsender "
            f"{where}"
        )
    return identity


def _refuse_running_server(path: str, where: str) -> None:
    """A running server recycles its files while we read them."""
    try:
        process_id = int(Path(path, os.pardir, "postmaster.pid").read_text(encoding="ascii").split()[0])
        os.kill(process_id, 0)
    except PermissionError:
        pass  # it is somebody else's process, so it is there
    except (OSError, ValueError, IndexError, UnicodeError):
        return
    raise ConfigurationError(
        f'WAL directory "{path}" belongs to a running PostgreSQL server, which recycles its files; '
        f"archive its WAL with pg_receivewal and serve that directory {where}"
    )


class _ListeningProbe:
    """
    The part of a reactor that endpoints listen with; binds, and lets go at once.

    An endpoint keeps its address to itself, and a port that was opened through
    the real reactor is closed only when that runs.
    """

    def listenTCP(self, port: int, factory: Factory, backlog: int = 50, interface: str = "") -> None:
        family = socket.AF_INET6 if ":" in interface else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((interface, port))
                probe.listen(1)
            except OSError as error:
                raise CannotListenError(interface, port, error) from error

    def listenUNIX(
        self, address: str, factory: Factory, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(address)
            except (FileNotFoundError, ConnectionRefusedError):
                if not os.access(Path(address).parent, os.W_OK):
                    error = OSError("its directory is missing or cannot be written to")
                    raise CannotListenError("unix", address, error) from error
                return
            except OSError as error:
                raise CannotListenError("unix", address, error) from error
        raise CannotListenError("unix", address, OSError("Address already in use"))


def endpoints(settings: Settings, reactor: object) -> list[tuple[str, IStreamServerEndpoint]]:
    """
    Return the endpoints of ``listen`` with their descriptions.

    :raises walsender.errors.ConfigurationError: a description is none.
    """
    made = []
    for description in settings.listen:
        try:
            made.append((description, serverFromString(reactor, description)))
        except Exception as error:  # each endpoint type complains in its own way
            raise ConfigurationError(
                f'invalid value for parameter "listen" from {settings.sources["listen"]}: '
                f'"{description}" is no server endpoint ({error})'
            ) from error
    return made


def listen_error(settings: Settings, description: str, failure: Failure) -> ConfigurationError:
    """Return the error for an endpoint that cannot be listened on."""
    reason = getattr(failure.value, "socketError", failure.value)
    text = getattr(reason, "strerror", None) or reason
    return ConfigurationError(
        f'could not listen on "{description}": {text} (parameter "listen" from {settings.sources["listen"]})'
    )


def check_endpoints(settings: Settings) -> None:
    """
    Check that every endpoint of ``listen`` could be listened on now.

    :raises walsender.errors.ConfigurationError: one could not.
    """
    for description, endpoint in endpoints(settings, _ListeningProbe()):
        if description.startswith("systemd:"):
            continue  # systemd has bound it
        failures: list[Failure] = []
        endpoint.listen(Factory()).addErrback(failures.append)
        if failures:
            raise listen_error(settings, description, failures[0])
