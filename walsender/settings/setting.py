"""`Setting`: one row of the table of settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .values import Kind


@dataclass(frozen=True, slots=True)
class Setting:
    """
    One setting.

    :ivar name: PostgreSQL's name where it has the setting.
    :ivar kind: what values it may have.
    :ivar metavar: what stands for the value in the help.
    :ivar description: one line for the help and for the sample file.
    :ivar default: as the configuration file would say it; ``None`` when *derive* computes it
        or, without that, when a value must be given.
    :ivar derive: gives the default from the values of the settings above this one.
    :ivar derived_default: what *derive* does, in words.
    :ivar short: a letter for the command line.
    :ivar restart_required: a change takes effect at the next start only; otherwise when the
        configuration is read again.
    """

    name: str
    kind: Kind
    metavar: str
    description: str
    default: str | None = None
    derive: Callable[[Mapping[str, Any]], object] | None = None
    derived_default: str = ""
    short: str | None = None
    restart_required: bool = False
