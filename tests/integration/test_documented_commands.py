"""
Every command of the tutorial and the how-tos, run against a real PostgreSQL.

The tutorial here; all pages with ``WALSENDER_DOCUMENTED_COMMANDS=all``: ``tox -e docs-commands``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pytest
from documented_commands import pages, run_page, script

from walsender.testing.installation import PostgresInstallation

if TYPE_CHECKING:
    from pathlib import Path

ALL: Final = os.environ.get("WALSENDER_DOCUMENTED_COMMANDS") == "all"


@pytest.mark.parametrize("page", pages() if ALL else ["tutorial.md"])
def test_page(page: str, space: Path) -> None:
    """Each command of the page succeeds, in its order, and what the page promises is so."""
    run_page(page, PostgresInstallation.embedded(18), space)


@pytest.mark.parametrize("page", pages())
def test_pageChecks(page: str) -> None:
    """Each page says how to see that what it promises is so."""
    assert "\ntest " in script(page), page
