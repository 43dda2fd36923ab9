"""The settings as ``pg_settings`` shows them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from .groups import GROUP_OF
from .secrets import without_password
from .table import SETTINGS
from .values import TIME_UNITS, Assignment, Boolean, Duration, Enumeration, Integer

if TYPE_CHECKING:
    from collections.abc import Collection

    from .loading import Settings
    from .setting import Setting

_FILE: Final = re.compile(r'file "(?P<path>.*)" line (?P<line>[0-9]+)')


@dataclass(frozen=True, slots=True)
class SettingDescription:
    """
    One setting, by the names of the columns of ``pg_settings``.

    :ivar setting: its value in the unit.
    :ivar shown: as SHOW prints it.
    """

    name: str
    setting: str
    shown: str
    unit: str | None
    category: str
    short_desc: str
    context: str
    vartype: str
    source: str
    min_val: str | None = None
    max_val: str | None = None
    enumvals: tuple[str, ...] | None = None
    boot_val: str | None = None
    sourcefile: str | None = None
    sourceline: int | None = None
    pending_restart: bool = False


def describe(settings: Settings, pending: Collection[str] = ()) -> list[SettingDescription]:
    """
    Return all settings.

    :param pending: names of those that have another value in the configuration since, for the next start.
    """
    return [_describe(setting, settings, setting.name in pending) for setting in SETTINGS]


def _describe(setting: Setting, settings: Settings, pending: bool) -> SettingDescription:
    kind, value, source = setting.kind, getattr(settings, setting.name), settings.sources[setting.name]
    text = _text(value, kind)
    if setting.name == "primary_conninfo":
        text = without_password(text)
    unit = kind.unit if isinstance(kind, Integer) else None
    vartype = {Boolean: "bool", Enumeration: "enum", Integer: "integer", Duration: "integer"}.get(
        type(kind), "string"
    )
    in_file = _FILE.fullmatch(source)
    where = "configuration file" if in_file else "default" if source == "default" else "command line"
    return SettingDescription(
        setting.name,
        text,
        with_unit(int(text), unit) if unit else text,
        unit,
        GROUP_OF[setting.name],
        setting.description,
        "postmaster" if setting.restart_required else "sighup",
        vartype,
        where,
        str(kind.minimum) if isinstance(kind, Integer) else None,
        str(kind.maximum) if isinstance(kind, Integer) else None,
        kind.words if isinstance(kind, Enumeration) else None,
        _boot_value(setting),
        in_file["path"] if in_file else None,
        int(in_file["line"]) if in_file else None,
        pending,
    )


def _text(value: Any, kind: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(kind, Duration):
        return str(round(value * 1e6 / TIME_UNITS[kind.unit]))
    if isinstance(value, tuple):
        return ", ".join(value) or "off"
    return "off" if value is None else str(value)


def _boot_value(setting: Setting) -> str | None:
    if setting.default is None:
        return None
    return _text(setting.kind.parse(Assignment(setting.name, setting.default, "", "/")), setting.kind)


_STEPS: Final = {
    "ms": (("ms", 1), ("s", 1000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)),
    "s": (("s", 1), ("min", 60), ("h", 3600), ("d", 86_400)),
    "MB": (("MB", 1), ("GB", 1024), ("TB", 1 << 20)),
    "kB": (("kB", 1), ("MB", 1024), ("GB", 1 << 20), ("TB", 1 << 30)),
}


def with_unit(count: int, unit: str) -> str:
    """Return a value as SHOW prints it, in the largest unit that divides it; 0 and less without one."""
    if count <= 0:
        return str(count)
    name, size = max((step for step in _STEPS[unit] if count % step[1] == 0), key=lambda step: step[1])
    return f"{count // size}{name}"
