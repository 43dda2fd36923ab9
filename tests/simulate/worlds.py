"""What runs in the process that has the simulated worlds."""

from __future__ import annotations

from planted import PLANTED
from twisted.logger import globalLogBeginner

from walsender.simulate.run import run


def begin() -> None:
    """Begin to log, to nowhere: before that Twisted keeps every event, and the world that it is about."""
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)


def planted_failure(name: str, seed: int) -> str:
    """Return what breaks in a run with a planted bug."""
    plant, _ = PLANTED[name]
    with plant():
        return run(seed).failure
