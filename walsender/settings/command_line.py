"""The options of the command line: one for each setting, and the configuration file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .loading import CONFIG_FILE
from .table import SETTINGS
from .values import StringList

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .setting import Setting


@dataclass(frozen=True, slots=True)
class Option:
    """
    One option of the command line; every one takes a value.

    :ivar name: without dashes in front, ``wal-directory``.
    :ivar short: one letter, or ``None``.
    :ivar metavar: what stands for the value in the help.
    :ivar description: one line.
    :ivar repeatable: given again, it adds to what was given before; otherwise the last one wins.
    """

    name: str
    short: str | None
    metavar: str
    description: str
    repeatable: bool = False


def options() -> Sequence[Option]:
    """Return the options of the command line: ``--config-file``, then one for each setting."""
    return (
        Option(CONFIG_FILE.replace("_", "-"), None, "FILE", "configuration file, as postgresql.conf"),
        *(
            Option(
                setting.name.replace("_", "-"),
                setting.short,
                setting.metavar,
                _help(setting),
                repeatable=isinstance(setting.kind, StringList),
            )
            for setting in SETTINGS
        ),
    )


def _help(setting: Setting) -> str:
    default = setting.default or setting.derived_default
    return f"{setting.description} [default: {default}]" if default else setting.description
