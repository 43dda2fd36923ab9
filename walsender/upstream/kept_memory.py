"""
Memory that is freed, to be used again at once.

What waits for the disk is allocated a message at a time and freed a commit at a time.  glibc gives the kernel
back what is free at the end of its heap, and having it again, page by page, takes longer than all that is
done with it.
"""

from __future__ import annotations

from functools import cache


@cache  # a second block would come from memory that is in use, and be filled with zeros
def keep_freed_memory(length: int) -> None:
    """
    Have glibc keep memory that is freed; harmless with another library.

    It keeps twice the largest block that it has ever seen freed, of up to 32 MiB, at the end of each heap, of
    which most threads have one; and it takes blocks up to that size from there from now on.  So it is shown
    one, which is never touched.

    Source: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.
    """
    bytes(length)
