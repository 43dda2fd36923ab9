"""Which PostgreSQL servers the integration tests use."""

from __future__ import annotations

import os
from typing import Final

import pytest

VERSIONS: Final = (16, 18)

_THOROUGH: Final = "WALSENDER_EACH_VERSION" in os.environ

newest_at_least = pytest.mark.parametrize(
    "installation",
    VERSIONS if _THOROUGH else VERSIONS[-1:],
    indirect=True,
    ids=lambda version: f"pg{version}",
)
"""For what takes long: the newest in the ordinary run, all with ``tox -e versions``."""
