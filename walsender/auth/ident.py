"""
The maps of ``pg_ident.conf``: which system user may be which role.

Source: PostgreSQL, src/backend/libpq/hba.c, check_usermap and check_ident_usermap.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IdentMaps:
    """All lines of a file, in their order."""

    def permits(self, map_name: str | None, system_name: str, role: str) -> bool:
        """
        Return whether *system_name* may be *role*.

        :param map_name: ``None``: there is no map, the names must be equal.
        :param system_name: what the operating system or a certificate says of the client.
        """
        if map_name is None:
            return system_name == role
        raise NotImplementedError


def load_ident(path: str) -> IdentMaps:
    """
    Return the maps in the file *path* and those that it includes.

    :param path: absolute.
    :raises AccessFileError: it cannot be read, or one of its lines is wrong; all are told.
    """
    raise NotImplementedError
