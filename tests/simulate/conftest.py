"""Before logging has begun Twisted keeps every event, and with it the world that it is about."""

from __future__ import annotations

import pytest
from twisted.logger import globalLogBeginner


@pytest.fixture(scope="session", autouse=True)
def begin_logging() -> None:
    """Begin."""
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
