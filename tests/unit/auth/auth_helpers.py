"""Files that say who may come in, for the tests of what reads them."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from walsender.auth import AccessFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

T = TypeVar("T")


@contextmanager
def files(content: bytes | str, others: Mapping[str, str] | None = None, mode: int = 0o600) -> Iterator[Path]:
    """Give the path of a file with *content*, in a directory that has *others* by name."""
    with tempfile.TemporaryDirectory() as directory:
        for name, text in (others or {}).items():
            path = Path(directory, name)
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        file = Path(directory, "file.conf")
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(mode)
        yield file


def loaded(load: Callable[[str], T], content: bytes | str, others: Mapping[str, str] | None = None) -> T:
    """Return what *load* makes of a file with *content*."""
    with files(content, others) as path:
        return load(str(path))


def problems(
    load: Callable[[str], object], content: bytes | str, others: Mapping[str, str] | None = None
) -> list[tuple[int, str]]:
    """Return what *load* says of a file with *content*: line and message, none if it is good."""
    with files(content, others) as path:
        try:
            load(str(path))
        except AccessFileError as error:
            return [(one.line, one.message.replace(f"{path.parent}/", "")) for one in error.problems]
        return []
