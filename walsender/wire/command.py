"""
The replication commands of PostgreSQL 9.3 to 19, parsed whole.

`parse_command` knows from the server's version which commands and options
exist.  It reads also what this program does not do, so that a refusal can say what
is refused.  Any bytes give a command or a `WalsenderError`.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

from walsender.errors import CommandSyntaxError, WalsenderError
from walsender.lsn import LSN
from walsender.wire.errors import NotACommand, NotACommandBefore14
from walsender.wire.options import Option, backup_options, slot_alterations, slot_options
from walsender.wire.scanner import Kind, Scanner, Token
from walsender.wire.statements import (
    AlterReplicationSlot,
    BaseBackup,
    Command,
    CreateReplicationSlot,
    DropReplicationSlot,
    IdentifySystem,
    ReadReplicationSlot,
    Show,
    StartReplication,
    TimelineHistory,
    UploadManifest,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_Element = TypeVar("_Element")

_NEVER: Final = 1 << 30

# Keyword → first version that has it, first version that has it no longer.
_BACKUP_KEYWORDS: Final[Mapping[str, tuple[int, int]]] = {
    "LABEL": (90100, 150000),
    "PROGRESS": (90100, 150000),
    "FAST": (90100, 150000),
    "WAL": (90100, 150000),
    "NOWAIT": (90100, 150000),
    "MAX_RATE": (90400, 150000),
    "TABLESPACE_MAP": (90500, 150000),
    "NOVERIFY_CHECKSUMS": (110000, 150000),
    "MANIFEST": (130000, 150000),
    "MANIFEST_CHECKSUMS": (130000, 150000),
}
_KEYWORDS: Final[Mapping[str, tuple[int, int]]] = {
    "IDENTIFY_SYSTEM": (90000, _NEVER),
    "START_REPLICATION": (90000, _NEVER),
    "BASE_BACKUP": (90100, _NEVER),
    "TIMELINE": (90300, _NEVER),
    "TIMELINE_HISTORY": (90300, _NEVER),
    "SLOT": (90400, _NEVER),
    "PHYSICAL": (90400, _NEVER),
    "LOGICAL": (90400, _NEVER),
    "CREATE_REPLICATION_SLOT": (90400, _NEVER),
    "DROP_REPLICATION_SLOT": (90400, _NEVER),
    "RESERVE_WAL": (90600, _NEVER),
    "SHOW": (100000, _NEVER),
    "TEMPORARY": (100000, _NEVER),
    "EXPORT_SNAPSHOT": (100000, _NEVER),
    "NOEXPORT_SNAPSHOT": (100000, _NEVER),
    "USE_SNAPSHOT": (100000, _NEVER),
    "WAIT": (110000, _NEVER),
    "READ_REPLICATION_SLOT": (150000, _NEVER),
    "TWO_PHASE": (150000, _NEVER),
    "ALTER_REPLICATION_SLOT": (170000, _NEVER),
    "UPLOAD_MANIFEST": (170000, _NEVER),
    **_BACKUP_KEYWORDS,
}
_SQL_SINCE: Final = 100000
_SQL_REFUSAL_SINCE: Final = 110000
_SQL_SQLSTATE_SINCE: Final = 140000
_SLOT_OPTION_LIST_SINCE: Final = 100000
_GENERIC_OPTIONS_SINCE: Final = 150000

_LEGACY_SLOT_OPTIONS: Final[Mapping[str, Option]] = {
    "EXPORT_SNAPSHOT": ("snapshot", "export"),
    "NOEXPORT_SNAPSHOT": ("snapshot", "nothing"),
    "USE_SNAPSHOT": ("snapshot", "use"),
    "RESERVE_WAL": ("reserve_wal", None),
    "TWO_PHASE": ("two_phase", None),
}


def _not_a_command(version: int) -> WalsenderError:
    refusal = "cannot execute SQL commands in WAL sender for physical replication"
    if version >= _SQL_SQLSTATE_SINCE:
        return NotACommand(refusal)
    if version >= _SQL_REFUSAL_SINCE:
        return NotACommandBefore14(refusal)
    if version >= _SQL_SINCE:
        return NotACommandBefore14("not connected to database")
    return CommandSyntaxError("syntax error")


@functools.cache
def _keywords(version: int) -> frozenset[str]:
    return frozenset(word for word, (since, until) in _KEYWORDS.items() if since <= version < until)


class _Parser:
    """
    A recursive descent over the words of one command, one word ahead.

    Source: PostgreSQL, src/backend/replication/repl_gram.y of each version.
    """

    def __init__(self, text: bytes, version: int) -> None:
        self._version = version
        self._scanner = Scanner(text, version, _keywords(version))
        self._ahead: Token | None = None

    def command(self) -> Command:
        """Read all of it."""
        first = self._take()
        if first.kind is not Kind.KEYWORD or first.text not in self.statements:
            raise _not_a_command(self._version)
        finish = self.statements[first.text](self)
        self._take_if(Kind.OTHER, ";")
        if self._peek().kind is not Kind.END:
            raise CommandSyntaxError("syntax error")
        # Only now: what an option means is judged after the whole text is known to be a command.
        command = finish()
        notices = tuple(self._scanner.notices)
        return replace(command, notices=notices) if notices else command

    # Statements.  Each returns what makes the command once the text has ended well.

    def _identify_system(self) -> Callable[[], Command]:
        return IdentifySystem

    def _start_replication(self) -> Callable[[], Command]:
        slot = self._identifier() if self._take_if(Kind.KEYWORD, "SLOT") else None
        if slot is not None and self._take_if(Kind.KEYWORD, "LOGICAL"):
            start = self._position()
            options = self._list(self._plugin_option) if self._take_if(Kind.OTHER, "(") else ()
            return lambda: StartReplication(start, None, slot, logical=True, options=options)
        self._take_if(Kind.KEYWORD, "PHYSICAL")
        start = self._position()
        timeline = self._timeline() if self._take_if(Kind.KEYWORD, "TIMELINE") else None
        return lambda: StartReplication(start, timeline, slot)

    def _timeline_history(self) -> Callable[[], Command]:
        timeline = self._timeline()
        return lambda: TimelineHistory(timeline)

    def _show(self) -> Callable[[], Command]:
        name = self._dotted_name()
        return lambda: Show(name)

    def _create_replication_slot(self) -> Callable[[], Command]:
        slot = self._identifier()
        temporary = self._take_if(Kind.KEYWORD, "TEMPORARY")
        plugin = self._identifier() if self._take_if(Kind.KEYWORD, "LOGICAL") else None
        if plugin is None and not self._take_if(Kind.KEYWORD, "PHYSICAL"):
            raise CommandSyntaxError("syntax error")
        given: list[Option] = []
        if self._version >= _GENERIC_OPTIONS_SINCE and self._take_if(Kind.OTHER, "("):
            given += self._list(self._option)
        elif self._version >= _SLOT_OPTION_LIST_SINCE:
            while self._peek().kind is Kind.KEYWORD and self._peek().text in _LEGACY_SLOT_OPTIONS:
                given.append(_LEGACY_SLOT_OPTIONS[self._take().text])
        elif plugin is None and self._take_if(Kind.KEYWORD, "RESERVE_WAL"):
            given.append(("reserve_wal", None))
        options = tuple(given)

        def finish() -> Command:
            wanted = slot_options(options, self._version, logical=plugin is not None)
            return CreateReplicationSlot(
                slot,
                temporary,
                plugin,
                reserve_wal=wanted.reserve_wal,
                snapshot=wanted.snapshot,
                two_phase=wanted.two_phase,
                failover=wanted.failover,
            )

        return finish

    def _drop_replication_slot(self) -> Callable[[], Command]:
        slot = self._identifier()
        wait = self._take_if(Kind.KEYWORD, "WAIT")
        return lambda: DropReplicationSlot(slot, wait)

    def _read_replication_slot(self) -> Callable[[], Command]:
        slot = self._dotted_name()
        return lambda: ReadReplicationSlot(slot)

    def _alter_replication_slot(self) -> Callable[[], Command]:
        slot = self._identifier()
        self._expect(Kind.OTHER, "(")
        options = self._list(self._option)

        def finish() -> Command:
            changes = slot_alterations(options, self._version)
            return AlterReplicationSlot(slot, changes.get("failover"), changes.get("two_phase"))

        return finish

    def _base_backup(self) -> Callable[[], Command]:
        options: tuple[Option, ...] = ()
        if self._version < _GENERIC_OPTIONS_SINCE:
            options = self._old_backup_options()
        elif self._take_if(Kind.OTHER, "("):
            options = self._list(self._option)
        return lambda: BaseBackup(backup_options(options, self._version))

    def _upload_manifest(self) -> Callable[[], Command]:
        return UploadManifest

    # Parts of statements.

    def _old_backup_options(self) -> tuple[Option, ...]:
        options: list[Option] = []
        while (token := self._peek()).kind is Kind.KEYWORD and token.text in _BACKUP_KEYWORDS:
            self._take()
            value: str | int | None = None
            if token.text in {"LABEL", "MANIFEST", "MANIFEST_CHECKSUMS"}:
                value = self._expect(Kind.STRING).text
            elif token.text == "MAX_RATE":
                value = self._expect(Kind.NUMBER).number
            options.append((token.text.lower(), value))
        return tuple(options)

    def _list(self, element: Callable[[], _Element]) -> tuple[_Element, ...]:
        """Read elements with commas between them, and the closing parenthesis."""
        elements = [element()]
        while self._take_if(Kind.OTHER, ","):
            elements.append(element())
        self._expect(Kind.OTHER, ")")
        return tuple(elements)

    def _option(self) -> Option:
        token = self._take()
        # Any keyword may be a name here, but that PostgreSQL forgot one (seen on 15, 16 and 18).
        if token.kind not in {Kind.IDENTIFIER, Kind.KEYWORD} or token.text == ReadReplicationSlot.keyword:
            raise CommandSyntaxError("syntax error")
        name = token.text if token.kind is Kind.IDENTIFIER else token.text.lower()
        ahead = self._peek()
        if ahead.kind in {Kind.IDENTIFIER, Kind.STRING}:
            return name, self._take().text
        return name, self._take().number if ahead.kind is Kind.NUMBER else None

    def _plugin_option(self) -> tuple[str, str | None]:
        name = self._identifier()
        return name, self._take().text if self._peek().kind is Kind.STRING else None

    def _dotted_name(self) -> str:
        name = self._identifier()
        while self._take_if(Kind.OTHER, "."):
            name += "." + self._identifier()
        return name

    def _timeline(self) -> int:
        timeline = self._expect(Kind.NUMBER).number
        if timeline == 0:
            raise CommandSyntaxError("invalid timeline 0")
        return timeline

    def _position(self) -> LSN:
        return LSN(self._expect(Kind.POSITION).number)

    def _identifier(self) -> str:
        return self._expect(Kind.IDENTIFIER).text

    # Words.

    def _peek(self) -> Token:
        if self._ahead is None:
            self._ahead = self._scanner.next_token()
        return self._ahead

    def _take(self) -> Token:
        token = self._peek()
        self._ahead = None
        return token

    def _take_if(self, kind: Kind, text: str) -> bool:
        token = self._peek()
        found = token.kind is kind and token.text == text
        if found:
            self._take()
        return found

    def _expect(self, kind: Kind, text: str | None = None) -> Token:
        token = self._take()
        if token.kind is not kind or (text is not None and token.text != text):
            raise CommandSyntaxError("syntax error")
        return token

    statements: Final[Mapping[str, Callable[[_Parser], Callable[[], Command]]]] = {
        IdentifySystem.keyword: _identify_system,
        StartReplication.keyword: _start_replication,
        TimelineHistory.keyword: _timeline_history,
        Show.keyword: _show,
        CreateReplicationSlot.keyword: _create_replication_slot,
        DropReplicationSlot.keyword: _drop_replication_slot,
        ReadReplicationSlot.keyword: _read_replication_slot,
        AlterReplicationSlot.keyword: _alter_replication_slot,
        BaseBackup.keyword: _base_backup,
        UploadManifest.keyword: _upload_manifest,
    }


def parse_command(text: bytes, version: int) -> Command:
    """
    Return the replication command that *text* is.

    :param text: of a `Query`, without its NUL.
    :param version: of the server that we are, as 90300 or 180000.
    :raises NotACommand: it does not begin with a command of that version (0A000;
        `NotACommandBefore14`, XX000, from 10 to 13; a syntax error before).
    :raises CommandSyntaxError: it goes on wrong (42601).
    :raises WalsenderError: an option is not one of that command, or has a wrong value.

    Source: PostgreSQL, src/backend/replication/walsender.c, exec_replication_command.
    """
    return _Parser(text, version).command()
