r"""
The maps of ``pg_ident.conf``: which system user may be which role.

Each line is the name of a map, a system user and a role.  A system user that
begins with ``/`` is a regular expression, and ``\1`` in the role stands for
what its first group matched.

Source: PostgreSQL, src/backend/libpq/hba.c, parse_ident_line, check_usermap and check_ident_usermap.
"""

from __future__ import annotations

from dataclasses import dataclass

from walsender.auth.names import BadName, Name
from walsender.auth.problems import AccessFileError
from walsender.auth.tokens import Record, read_lines

_FIRST_GROUP = r"\1"
_FIELDS = 3


@dataclass(frozen=True, slots=True)
class IdentLine:
    """
    One line.

    :ivar role: a name, ``all``, or a regular expression.
    """

    map_name: str
    system_name: Name
    role: Name
    file: str = ""
    number: int = 0

    def permits(self, system_name: str, role: str) -> bool | None:
        """Return whether *system_name* may be *role*; ``None``: it may not, and later lines do not count."""
        if self.system_name.pattern is None:
            return self.system_name.matches(system_name) and _is_role(self.role, role)
        match = self.system_name.search(system_name)
        if match is None:
            return False
        if not self.has_reference:
            return _is_role(self.role, role)
        if match[1] is None:
            return None
        # Whatever comes out is a name: somebody whose name begins with a + gets no group by it.
        return self.role.text.replace(_FIRST_GROUP, match[1], 1) == role

    @property
    def has_reference(self) -> bool:
        """Whether the role is made of what the system user's regular expression has matched."""
        is_regex = self.system_name.pattern is not None
        return is_regex and self.role.pattern is None and _FIRST_GROUP in self.role.text


def _is_role(name: Name, role: str) -> bool:
    return name.is_keyword("all") or name.matches(role)


@dataclass(frozen=True, slots=True)
class IdentMaps:
    """All lines of a file, in their order."""

    lines: tuple[IdentLine, ...] = ()

    def permits(self, map_name: str | None, system_name: str, role: str) -> bool:
        """
        Return whether *system_name* may be *role*; upper and lower case differ.

        :param map_name: ``None``: there is no map, the names must be equal.
        :param system_name: what the operating system or a certificate says of the client.
        """
        if map_name is None:
            return system_name == role
        for line in self.lines:
            if line.map_name == map_name and (permits := line.permits(system_name, role)) is not False:
                return permits is True
        return False


def load_ident(path: str) -> IdentMaps:
    """
    Return the maps in the file *path* and those that it includes.

    :param path: absolute.
    :raises AccessFileError: it cannot be read, or one of its lines is wrong; all are told.
    """
    lines, problems = read_lines(path, _line)
    if problems:
        raise AccessFileError(path, problems)
    return IdentMaps(tuple(lines))


def _line(record: Record) -> IdentLine:
    """
    Return what *record* says; what follows the role is nothing to PostgreSQL either.

    :raises BadName: the text says what is wrong.
    """
    if any(len(field) > 1 for field in record.fields[:_FIELDS]):
        raise BadName("multiple values in ident field")
    if len(record.fields) < _FIELDS:
        raise BadName("missing entry at end of line")
    ((map_name,), (system_name,), (role,)) = record.fields[:_FIELDS]
    line = IdentLine(map_name.text, Name.of(system_name), Name.of(role), record.file, record.line)
    if line.role.is_group:
        raise BadName(f'"{role.text}" is not supported: no roles here have members')
    pattern = line.system_name.pattern
    if line.has_reference and pattern is not None and not pattern.groups:
        # PostgreSQL finds out when somebody connects, and then lets nobody in.
        raise BadName(
            f'regular expression "{system_name.text[1:]}" has no subexpressions '
            f'as requested by backreference in "{role.text}"'
        )
    return line
