"""The options of the command line: one for each setting, and the configuration file; and their help."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .groups import GROUPS
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


_WIDTH: Final = 80
_COLUMN: Final = 34  # where what an option does begins

_INTRODUCTION: Final = """\
walsender serves the WAL in a directory, or of a live server, over PostgreSQL's
streaming replication protocol.

Usage:
  twistd [TWISTD OPTION]... walsender [OPTION]...
"""

_END: Final = """\
Each of these is a setting, named in the file with underscores instead of
dashes.  The command line wins over the file, the file over the default.
Times take a unit (us, ms, s, min, h, d), sizes too (kB, MB, GB, TB).
What is not marked (restart) can be changed in the file while walsender runs;
SIGHUP makes it read the file again.

Options of twistd, such as --nodaemon, --logfile and --uid, stand before the
word walsender; see "twistd --help"."""


def options() -> Sequence[Option]:
    """Return the options of the command line: ``--config-file``, then one for each setting."""
    return (
        Option(CONFIG_FILE.replace("_", "-"), None, "FILE", "configuration file, as postgresql.conf"),
        *(_option(setting) for setting in SETTINGS),
    )


def help_text() -> str:
    """Return what ``--help`` prints, in groups as PostgreSQL's programs do it."""
    config_file, *_ = options()
    others = (
        config_file,
        Option("", "c", "NAME=VALUE", "set any setting"),
        Option("version", None, "", "print the version, then exit"),
        Option("help", None, "", "print this, then exit"),
    )
    by_name = {setting.name: _option(setting) for setting in SETTINGS}
    groups = {"Options": others} | {
        title: tuple(by_name[name] for name in names) for title, names in GROUPS.items()
    }
    listed = "\n".join(
        "\n".join([f"{title}:", *(line for one in members for line in _lines(one)), ""])
        for title, members in groups.items()
    )
    return f"{_INTRODUCTION}\n{listed}\n{_END}"


def _option(setting: Setting) -> Option:
    default = setting.default or setting.derived_default
    more = (" (restart)" if setting.restart_required else "") + (f" [{default}]" if default else "")
    return Option(
        setting.name.replace("_", "-"),
        setting.short,
        setting.metavar,
        f"{setting.description}{more}",
        repeatable=isinstance(setting.kind, StringList),
    )


def _lines(option: Option) -> list[str]:
    short = f"-{option.short}" if option.short else "  "
    if option.name:
        value = f"={option.metavar}" if option.metavar else ""
        term = f"  {short}{', ' if option.short else '  '}--{option.name}{value}"
    else:
        term = f"  {short} {option.metavar}"
    text = textwrap.wrap(option.description, _WIDTH - _COLUMN, break_on_hyphens=False)
    if len(term) > _COLUMN - 2:
        text.insert(0, "")
    first, *rest = text
    return [f"{term:<{_COLUMN}}{first}".rstrip(), *(" " * _COLUMN + line for line in rest)]
