"""Compresses files as archive commands do, for tests."""

from __future__ import annotations

import gzip
import sys
from typing import TYPE_CHECKING, Final

import lz4.frame

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

#: How to compress, by the suffix that such a file has.
COMPRESS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    ".gz": gzip.compress,
    ".lz4": lz4.frame.compress,
    ".zst": zstd.compress,
}


def compress_file(path: Path, form: str) -> Path:
    """Replace a file by a compressed one, as the programs do, and return that."""
    compressed = path.with_name(path.name + form)
    compressed.write_bytes(COMPRESS[form](path.read_bytes()))
    path.unlink()
    return compressed
