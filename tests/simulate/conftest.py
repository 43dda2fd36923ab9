"""
Simulated worlds live in a process of their own.

Programs that were killed in them leave coroutines, which Python ends some time later, by an exception of
its own: in this process that would be the failure of whatever test runs then.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import pytest
from worlds import begin

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ProcessPoolExecutor]:
    """A process for simulated worlds."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=begin) as executor:
        yield executor
