"""
`Encryption`: what clients may encrypt with, as the settings say; read at the start, and again on SIGHUP.

At the start a file that cannot be used ends the program.  Later that is told in one line, and
what holds goes on to hold.  Connections that there are keep what they have begun with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from walsender.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from walsender.sender import IServerTls
    from walsender.settings import Settings


class Encryption:
    """
    Gives a factory its `IServerTls`.

    :param run_in_thread: calls a function in a thread pool.
    :param use: takes what is read, or ``None``: there is no encryption.
    :raises ConfigurationError: it cannot be read.
    """

    log = Logger()

    def __init__(
        self,
        settings: Settings,
        run_in_thread: Callable[..., Deferred[Any]],
        use: Callable[[IServerTls | None], object],
    ) -> None:
        self._run_in_thread = run_in_thread
        self._use = use
        self._turn = 0
        # Nobody is served yet, so that some small files may be waited for.
        use(read_tls(settings))

    def reload(self, settings: Settings) -> Deferred[None]:
        """Read the files again; fires when what is in them holds, or not."""
        self._turn += 1
        done: Deferred[None] = self._run_in_thread(read_tls, settings)
        return done.addCallbacks(self._read, self._failed, callbackArgs=(self._turn,))

    def _read(self, tls: IServerTls | None, turn: int) -> None:
        if turn == self._turn:  # or a later one has begun, and reads everything too
            self._use(tls)

    def _failed(self, failure: Failure) -> None:
        failure.trap(ConfigurationError)
        self.log.error(
            "SSL configuration was not reloaded: {error}",
            error=failure.value.message,  # type: ignore[union-attr]
        )


def read_tls(settings: Settings) -> IServerTls | None:
    """
    Return what clients may encrypt with.

    :raises ConfigurationError: a file is missing, or cannot be used.
    """
    if not settings.ssl:
        return None
    for name in ("ssl_cert_file", "ssl_key_file"):
        if not getattr(settings, name):
            raise ConfigurationError(
                f'parameter "{name}" must be set (parameter "ssl" is on from {settings.sources["ssl"]})'
            )
    # Takes a tenth of a second, which only who uses it need wait.
    from walsender.tls import TlsFiles, load_tls  # noqa: PLC0415

    return load_tls(
        TlsFiles(
            settings.ssl_cert_file,
            settings.ssl_key_file,
            settings.ssl_ca_file,
            settings.ssl_crl_file,
            settings.ssl_min_protocol_version,
        )
    )
