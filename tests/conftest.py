"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes is no matter of the program's: the machine may be busy.
settings.register_profile("walsender", deadline=None)
settings.load_profile("walsender")
