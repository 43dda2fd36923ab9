"""Whether a directory of WAL is good, for ``python -m walsender check``; nothing is written."""

from __future__ import annotations

from .command import run

__all__ = ["run"]
