"""
Become another program: as another user if asked, and ended by the kernel if the parent dies.

Run as a script by `walsender.testing.processes`, never imported: a fresh
interpreter may do what code between fork and exec of a threaded process must
not (``preexec_fn``).  Privileges are dropped here, not by the parent's
``subprocess``, because the interpreter may lie where that user cannot reach it.

Arguments: parent's process id, death signal, user id and group id (-1: stay),
then the program and its arguments.
"""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Drop privileges, arrange for our end, and become the program."""
    parent, death_signal, user, group = (int(value) for value in arguments[:4])
    program = arguments[4:]
    if user >= 0:
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)
    if sys.platform == "linux":
        # After the change of user, which would have cleared it; exec keeps it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:
            sys.exit("the parent has ended already")
    try:
        os.execv(program[0], program)  # noqa: S606 (no shell is wanted)
    except OSError as error:
        sys.exit(f"could not execute {program[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
