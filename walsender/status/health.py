"""
Is the server well?  By the names that Patroni has for the questions, and with their meaning.

Source: Patroni, docs/rest_api.rst, "Health check endpoints".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from walsender.errors import ConfigurationError
from walsender.settings.values import MAX_INTEGER, MEMORY_UNITS, Assignment, Integer

if TYPE_CHECKING:
    from walsender.console.snapshot import ServerView
    from walsender.upstream import NotReceiving

DEFAULT_LAG: Final = 16 << 20
"""Bytes that a relay may be behind its upstream and still be ready; one commit may have 8 MB."""

_MOST_LAG: Final = Integer(0, MAX_INTEGER, "kB")


@dataclass(frozen=True, slots=True)
class Health:
    """
    An answer.

    :ivar reason: why not.
    :ivar lag: bytes behind the upstream, if that is known.
    :ivar not_receiving: since when a relay receives nothing, and why.
    """

    reason: str = ""
    lag: int | None = None
    not_receiving: NotReceiving | None = None

    @property
    def is_good(self) -> bool:
        """Whether it is a yes."""
        return not self.reason


def parse_lag(text: str) -> int:
    """
    Return a number of bytes; without a unit it is in bytes, as in ``1024kB`` or ``16MB`` it has one.

    :raises walsender.errors.ConfigurationError: it is none.
    """
    if text.isascii() and text.isdecimal() and len(text) < len(str(1 << 63)):
        return int(text)
    if not text.endswith(tuple(MEMORY_UNITS)):
        raise ConfigurationError(f'invalid value for parameter "lag": "{text}"')
    return int(_MOST_LAG.parse(Assignment("lag", text, "", ""))) * MEMORY_UNITS["kB"]


def _because(reason: str, outage: NotReceiving | None) -> str:
    return f"{reason}: {outage.error}" if outage is not None and outage.error else reason


def health(view: ServerView, *, stopping: bool) -> Health:
    """Return whether WAL is being served."""
    outage = view.not_receiving()
    reason = ""
    if stopping:
        reason = "shutting down"
    elif not view.source.ready:
        reason = _because("there is no WAL to serve yet", outage)
    return Health(reason, not_receiving=outage)


def readiness(view: ServerView, most_lag: int, *, stopping: bool) -> Health:
    """
    Return whether a standby may be sent here: there is WAL, and it is not far behind the upstream's.

    What fills a directory that is no relay's is not known, and so counts as level.

    :param most_lag: bytes.
    """
    found = health(view, stopping=stopping)
    if not (found.is_good and view.is_relay):
        return found
    receiver = view.receiver()
    if receiver is None:
        reason = _because("nothing is received from the upstream", found.not_receiving)
        return replace(found, reason=reason)
    behind = receiver.lag > most_lag
    return Health(f"more than {most_lag} bytes behind the upstream" if behind else "", receiver.lag)
