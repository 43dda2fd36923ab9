"""The end of the program when something does not let go of it."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def end_within(seconds: float, last_words: Callable[[], object]) -> None:
    """
    Have the process end with status 0 after so many seconds, if it has not ended by itself.

    The end of a reactor waits for the threads of its pool, and one that reads from a network file system that
    is gone may wait for good; so would the end of the interpreter.

    :param last_words: is called then, in another thread.
    """

    def leave() -> None:
        time.sleep(seconds)
        try:
            last_words()
        finally:
            os._exit(0)

    threading.Thread(target=leave, name="walsender-end", daemon=True).start()
