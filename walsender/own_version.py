"""Which walsender this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def own_version() -> str:
    """Return the version that is installed, or ``unknown``."""
    try:
        return version("walsender")
    except PackageNotFoundError:  # run from its source
        return "unknown"
