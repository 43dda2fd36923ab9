"""Names that a package exports and imports only when somebody asks for them."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def attribute_of(package: str, homes: Mapping[str, Iterable[str]], name: str) -> object:
    """
    Return what *package* exports as *name*, for its ``__getattr__``; it is asked for once.

    :param homes: the modules of the package by what is exported from them.
    :raises AttributeError: it exports no such thing.
    """
    for home, names in homes.items():
        if name in names:
            value: object = getattr(importlib.import_module(f"{package}.{home}"), name)
            setattr(sys.modules[package], name, value)
            return value
    raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
