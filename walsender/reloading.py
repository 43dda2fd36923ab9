"""What a changed configuration changes in a running server, and what is said about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from walsender.sender.parameter_table import duration_text
from walsender.settings import SETTINGS, Settings

if TYPE_CHECKING:
    from twisted.logger import Logger


@dataclass(frozen=True, slots=True)
class Change:
    """
    From one configuration to the next.

    :ivar before: what holds.
    :ivar wanted: what was read.
    :ivar after: what will hold: *wanted*, but for what needs a restart.  That stays as it is, so that
        the next reload still sees the difference.
    """

    before: Settings
    wanted: Settings
    after: Settings

    @classmethod
    def between(cls, before: Settings, wanted: Settings) -> Change:
        """Return what is to change."""
        waiting = _needs_restart(before, wanted)
        taken = {name: getattr(wanted, name) for name in before.changed(wanted) if name not in waiting}
        sources = {**before.sources, **{name: wanted.sources[name] for name in taken}}
        return cls(before, wanted, replace(before, sources=sources, **taken))

    @property
    def waiting(self) -> frozenset[str]:
        """Names of what waits for a restart."""
        return frozenset(self.before.changed(self.wanted)) & _needs_restart(self.before, self.wanted)

    def tell(self, log: Logger) -> None:
        """Say what has changed, in PostgreSQL's words."""
        waiting = _needs_restart(self.before, self.wanted)
        for name in self.before.changed(self.wanted):
            if name in waiting:
                log.warn('parameter "{name}" cannot be changed without restarting the server', name=name)
            elif self.wanted.sources[name] == "default" != self.before.sources[name]:
                log.info('parameter "{name}" removed from configuration file, reset to default', name=name)
            elif name == "primary_conninfo":
                log.info('parameter "{name}" changed', name=name)  # there may be a password in it
            else:
                value = _value_text(getattr(self.wanted, name))
                log.info('parameter "{name}" changed to "{value}"', name=name, value=value)


def _needs_restart(before: Settings, wanted: Settings) -> set[str]:
    names = {setting.name for setting in SETTINGS if setting.restart_required}
    if bool(wanted.primary_conninfo) != bool(before.primary_conninfo):
        names.add("primary_conninfo")  # a relay is another kind of server
    return names


def _value_text(value: bool | float | str) -> str:
    """Return a value that a reload can change as PostgreSQL would show it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "on" if value else "off"
    return duration_text(value)
