"""
The grammar of statements: queries whole, of the others what drivers and administrators send.

Source: PostgreSQL's documentation, "SQL Commands".
"""

from __future__ import annotations

from typing import Final

from .errors import NotSupported, TooComplex
from .lexer import Kind
from .nodes import (
    Discard,
    Reset,
    SetParameter,
    Show,
    Statement,
    Transaction,
    Unsupported,
)
from .query_grammar import QueryReader

# What changes something, or is of no use here; a word that is not among them begins no statement.
_OTHER_COMMANDS: Final = frozenset(
    "alter analyze call checkpoint cluster comment copy create declare delete do drop execute explain "
    "fetch grant import insert listen load lock merge move notify prepare reassign refresh reindex "
    "revoke security truncate update vacuum".split()
)
_TWO_WORD_TAGS: Final = frozenset("alter create drop prepare refresh import security".split())
_LIVE_RELATION: Final = frozenset(("materialized", "foreign", "event", "access", "text", "user"))


def parse_statements(text: str) -> list[Statement]:
    """
    Return the statements of a text, which semicolons part; none if it is blank.

    :raises SqlError: one of them is none.
    """
    try:
        return _StatementReader(text).statements()
    except RecursionError:
        raise TooComplex("stack depth limit exceeded") from None


class _StatementReader(QueryReader):
    """Reads whole texts."""

    def statements(self) -> list[Statement]:
        """Take all statements."""
        found: list[Statement] = []
        while True:
            while self.take_operator(";"):
                pass
            if self._at_end:
                return found
            found.append(self._statement())
            if not (self.is_operator(";") or self._at_end):
                raise self.unexpected()

    @property
    def _at_end(self) -> bool:
        return self.token.kind is Kind.END

    def _statement(self) -> Statement:
        if self.starts_query() or self.is_operator("("):
            return self.query()
        if self.token.kind is not Kind.WORD:
            raise self.unexpected()
        match self.token.text:
            case "show":
                return self._show()
            case "set":
                return self._set()
            case "reset":
                self.advance()
                return Reset(self._parameter_name())
            case "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release":
                return self._transaction()
            case "discard" | "deallocate" | "close" | "unlisten":
                return self._discard()
            case word if word in _OTHER_COMMANDS:
                return self._other(word)
        raise self.unexpected()

    def _other(self, word: str) -> Unsupported:
        """Take all of a statement that is none here."""
        tag = [word]
        if word in _TWO_WORD_TAGS:
            ahead = 1
            while self.peek(ahead).text in {"or", "replace", "temp", "temporary", "unlogged", "unique"}:
                ahead += 1
            tag.append(self.peek(ahead).text)
            if tag[-1] in _LIVE_RELATION:
                tag.append(self.peek(ahead + 1).text)
        while not (self.token.kind is Kind.END or self.is_operator(";")):
            self.advance()
        return Unsupported(" ".join(tag).strip().upper())

    def _parameter_name(self) -> str:
        if self.take_words("time", "zone"):
            return "timezone"
        if self.take_words("transaction", "isolation", "level"):
            return "transaction_isolation"
        if self.take_words("session", "authorization"):
            return "session_authorization"
        name = self.any_name()
        while self.take_operator("."):
            name = f"{name}.{self.any_name()}"
        return name

    def _show(self) -> Show:
        self.advance()
        return Show(self._parameter_name())

    def _set(self) -> Statement:
        self.advance()
        is_local = self.take_word("local")
        if not is_local and self.take_words("session", "characteristics", "as", "transaction"):
            return Transaction("set", read_write=self._modes())
        if self.take_word("transaction"):
            return Transaction("set", read_write=self._modes())
        if not is_local and self.peek().text != "authorization":
            self.take_word("session")
        if self.take_words("time", "zone"):
            if self.take_word("local"):
                return SetParameter("timezone", None, is_local)
            return SetParameter("timezone", self._set_values("timezone"), is_local)
        if self.take_word("names"):
            return SetParameter("client_encoding", self._set_values("client_encoding"), is_local)
        if self.is_word("role", "constraints"):
            return self._other("set")
        name = self._parameter_name()
        if not self.take_word("to"):
            self.expect_operator("=")
        return SetParameter(name, self._set_values(name), is_local)

    def _set_values(self, name: str) -> tuple[str, ...] | None:
        if self.take_word("default"):
            return None
        values = [self._set_value(name)]
        while self.take_operator(","):
            values.append(self._set_value(name))
        return tuple(values)

    def _set_value(self, name: str) -> str:
        sign = self.advance().text if self.is_operator("-", "+") else ""
        if self.token.kind is Kind.NUMBER or (
            not sign and self.token.kind in {Kind.WORD, Kind.QUOTED, Kind.STRING}
        ):
            if name == "timezone" and self.token.kind is Kind.WORD and self.peek().kind is Kind.STRING:
                raise NotSupported("SET TIME ZONE with an interval is not supported", self.at + 1)
            return sign.replace("+", "") + self.advance().text
        raise self.unexpected()

    def _modes(self) -> bool:
        """Take the characteristics of a transaction; return whether it is to write."""
        read_write = False
        while self.token.kind is Kind.WORD:
            if self.take_words("isolation", "level"):
                if self.take_word("read"):
                    if not self.take_word("committed"):
                        self.expect_word("uncommitted")
                elif self.take_word("repeatable"):
                    self.expect_word("read")
                else:
                    self.expect_word("serializable")
            elif self.take_words("read", "write"):
                read_write = True
            elif self.take_words("read", "only"):
                read_write = False
            else:
                self.take_word("not")
                self.expect_word("deferrable")
            self.take_operator(",")
        return read_write

    def _transaction(self) -> Transaction:
        word = self.advance().text
        if word == "start":
            self.expect_word("transaction")
            return Transaction("start transaction", read_write=self._modes())
        if word == "savepoint":
            return Transaction("savepoint", self.name())
        if word == "release":
            self.take_word("savepoint")
            return Transaction("release", self.name())
        if self.is_word("prepared"):
            raise NotSupported("two-phase commit is not supported", self.at + 1)
        self.take_word("work") or self.take_word("transaction")
        if word == "begin":
            return Transaction("begin", read_write=self._modes())
        command = "rollback" if word in {"rollback", "abort"} else "commit"
        if command == "rollback" and self.take_word("to"):
            self.take_word("savepoint")
            return Transaction("rollback to", self.name())
        if self.take_word("and"):
            if not self.take_word("no"):
                raise NotSupported("AND CHAIN is not supported", self.at + 1)
            self.expect_word("chain")
        return Transaction(command)

    def _discard(self) -> Discard:
        word = self.advance().text
        if word == "deallocate":
            self.take_word("prepare")
        if word == "discard":
            if not self.is_word("all", "plans", "sequences", "temp", "temporary"):
                raise self.unexpected()
            what = self.advance().text
            tag = {"temporary": "TEMP"}.get(what, what.upper())
            return Discard(f"DISCARD {tag}", everything=what == "all")
        if word == "unlisten":
            self.take_operator("*") or self.name()
            return Discard("UNLISTEN")
        if self.take_word("all"):
            return Discard(f"{word.upper()}{' CURSOR' if word == 'close' else ''} ALL")
        return Discard("CLOSE CURSOR" if word == "close" else "DEALLOCATE", self.name())
