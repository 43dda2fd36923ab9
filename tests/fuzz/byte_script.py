"""Sieges written as bytes, which a fuzzer can bend and a corpus can hold."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from siege import VERSIONS, Siege

if TYPE_CHECKING:
    from collections.abc import Callable

# Deeds by how they are called: a number; a number and how it is cut; bytes too.
NUMBERED: Final = (
    "connect", "take_turns", "come_in", "stream", "read", "read_all", "close_half", "leave", "grow",
    "pass_time", "hold_threads",
)  # fmt: skip
SPOKEN: Final = (
    "start_up", "ask_encryption", "say_hello", "cancel", "give_password", "begin_scram", "end_scram",
    "command", "large", "report", "end_copy",
)  # fmt: skip
WORDED: Final = ("say", "text")
TYPED: Final = ("message",)
LYING: Final = ("lie",)


class ByteScript:
    """
    A siege written as bytes, which a fuzzer can bend: a version, then deeds.

    A deed is a byte that names it, two bytes that choose, one that cuts, and for some deeds a
    length byte and so many bytes.
    """

    DEEDS: Final = NUMBERED + SPOKEN + WORDED + TYPED + LYING

    def __init__(self, script: bytes) -> None:
        self._script = script
        self._at = 0

    def _take(self, count: int) -> bytes:
        taken = self._script[self._at : self._at + count]
        self._at += count
        return taken

    def play(self, siege: Siege | None = None, limit: int = 200) -> int:
        """
        Play it to its end and check; return how many deeds there were.

        :param siege: by default one of the version that the script says.
        """
        version = VERSIONS[int.from_bytes(self._take(1), "big") % len(VERSIONS)]
        siege = siege or Siege(version)
        deeds = 0
        try:
            while self._at < len(self._script) and deeds < limit:
                self._do(siege)
                siege.check()
                deeds += 1
        except BaseException:
            siege.close()
            raise
        siege.end()
        return deeds

    def _do(self, siege: Siege) -> None:
        name = self.DEEDS[int.from_bytes(self._take(1), "big") % len(self.DEEDS)]
        choice = int.from_bytes(self._take(2), "big")
        cut = int.from_bytes(self._take(1), "big")
        deed: Callable[..., None] = getattr(siege, name)
        if name in NUMBERED:
            deed(choice)
        elif name in SPOKEN:
            deed(choice, cut)
        elif name in LYING:
            deed(choice, int.from_bytes(self._take(4), "big"), cut)
        else:
            data = self._take(int.from_bytes(self._take(1), "big"))
            deed(*((choice,) if name in TYPED else ()), data, cut)


def scripted(version: int | None, *deeds: tuple[Any, ...]) -> bytes:
    """Return the bytes of a siege: deeds as ``(name, choice, cut, data or length)``."""
    script = bytearray((VERSIONS.index(version),))
    for name, *rest in deeds:
        choice, cut, data = (*rest, 0, 0, b"")[:3] if len(rest) < 3 else rest
        script += bytes((ByteScript.DEEDS.index(name),)) + struct.pack(">HB", choice, cut)
        if name in LYING:
            script += struct.pack(">I", data)
        elif name in WORDED + TYPED:
            script += bytes((len(data),)) + data
    return bytes(script)
