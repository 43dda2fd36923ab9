"""What a changed configuration changes in a running server, and what is said about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from walsender.errors import ConfigurationError
from walsender.sender.parameter_table import duration_text
from walsender.settings import SETTINGS, InvalidSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

# There may be a password in them, or in the commands that they hold.
_SECRET: Final = frozenset({"primary_conninfo"})


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
        for name in self.before.changed(self.wanted):
            if name in self.waiting:
                text = 'parameter "{name}" cannot be changed without restarting the server'
                log.warn(text, name=name, severity="LOG")
            elif self.wanted.sources[name] == "default" != self.before.sources[name]:
                log.info('parameter "{name}" removed from configuration file, reset to default', name=name)
            elif name in _SECRET:
                log.info('parameter "{name}" changed', name=name)
            else:
                value = _value_text(getattr(self.wanted, name))
                log.info('parameter "{name}" changed to "{value}"', name=name, value=value)


class Configuration:
    """
    What is set in a running server.

    :param settings: what it has begun with.
    :param now: seconds since 1970.
    :param read: reads the configuration again; ``None``: nobody can.
    :param apply: takes over what holds from now on.
    :ivar settings: what holds.
    :ivar read_at: when it was read.
    :ivar waiting: names of what has another value in the configuration, for the next start.
    """

    log = Logger()

    def __init__(
        self,
        settings: Settings,
        now: Callable[[], float],
        read: Callable[[], Settings] | None,
        apply: Callable[[Settings], object],
    ) -> None:
        self.settings = settings
        self.waiting: frozenset[str] = frozenset()
        self.read_at = now()
        self._now = now
        self._read = read
        self._apply = apply

    def reload(self) -> None:
        """
        Read everything again, and take over what can be changed while running.

        As in PostgreSQL one wrong value does not hinder others, and what needs a restart counts as wrong;
        after a name or a line that nobody understands nothing changes.

        Source: PostgreSQL, src/backend/utils/misc/guc.c, ProcessConfigFileInternal.
        """
        self.log.info("received SIGHUP, reloading configuration files")
        if self._read is None:
            return
        problems: tuple[str, ...] = ()
        try:
            try:
                wanted = self._read()
            except InvalidSettings as error:
                problems = error.problems
                if error.unaffected is None:
                    raise
                wanted = error.unaffected(self.settings)
            change = Change.between(self.settings, wanted)
            self._apply(change.after)
        except ConfigurationError as error:
            self._complain(problems or (error.message,), "no changes were applied")
            return
        change.tell(self.log)
        self.settings, self.waiting, self.read_at = change.after, change.waiting, self._now()
        if problems or change.waiting:
            self._complain(problems, "unaffected changes were applied")

    def _complain(self, problems: tuple[str, ...], outcome: str) -> None:
        for problem in problems:
            self.log.error("{problem}", problem=problem, severity="LOG")
        file = self.settings.config_file
        self.log.error(
            "configuration file {file} contains errors; {outcome}",
            file=f'"{file}"' if file else "",
            outcome=outcome,
            severity="LOG",
        )


def _needs_restart(before: Settings, wanted: Settings) -> set[str]:
    names = {setting.name for setting in SETTINGS if setting.restart_required}
    if bool(wanted.primary_conninfo) != bool(before.primary_conninfo):
        names.add("primary_conninfo")  # a relay is another kind of server
    return names


def _value_text(value: bool | float | str | tuple[str, ...]) -> str:
    """Return a value that a reload can change as PostgreSQL would show it."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return ", ".join(value) or "off"
    if isinstance(value, bool):
        return "on" if value else "off"
    return duration_text(value)
