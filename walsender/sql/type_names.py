"""The names of types in a query: ``double precision``, ``numeric(10, 2)``, ``timestamp with time zone``."""

from __future__ import annotations

from typing import Final

from .errors import NotSupported, SqlError
from .lexer import Kind
from .nodes import Cast, Constant, TypeName
from .token_reader import TokenReader

_SPELLINGS: Final = {
    "int": "int4",
    "integer": "int4",
    "smallint": "int2",
    "bigint": "int8",
    "real": "float4",
    "decimal": "numeric",
    "dec": "numeric",
    "boolean": "bool",
    "character varying": "varchar",
    "double precision": "float8",
    "float": "float8",
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
    "time with time zone": "timetz",
    "time without time zone": "time",
    "character": "bpchar",
    "char": "bpchar",
}
_TWO_WORDS: Final = {"double": "precision", "character": "varying", "char": "varying"}
_SINGLE_PRECISION: Final = 24
_INTERVAL_FIELDS: Final = ("year", "month", "day", "hour", "minute", "second")


class TypeNameReader(TokenReader):
    """Reads the names of types."""

    def type_name(self) -> TypeName:
        """Take the name of a type."""
        at, quoted = self.at, self.token.kind is Kind.QUOTED
        name = self.any_name()
        while self.take_operator("."):
            name, quoted = self.any_name(), True
        modifiers: list[int] = []
        if not quoted:
            if self.is_word(_TWO_WORDS.get(name, "")):
                name = "character varying" if self.advance().text == "varying" else "double precision"
            if name == "interval" and self.is_word(*_INTERVAL_FIELDS):
                raise NotSupported("fields of an interval type are not supported", self.at + 1)
        if self.take_operator("("):
            modifiers.append(self.integer())
            while self.take_operator(","):
                modifiers.append(self.integer())
            self.expect_operator(")")
        if not quoted:
            if name in {"timestamp", "time"}:
                for words in (("with", "time", "zone"), ("without", "time", "zone")):
                    if self.take_words(*words):
                        name = f"{name} {' '.join(words)}"
            if name == "float" and modifiers:
                name = "float4" if modifiers.pop() <= _SINGLE_PRECISION else "float8"
            name = _SPELLINGS.get(name, name)
        is_array = False
        while self.take_operator("["):
            if not self.is_operator("]"):
                self.integer()
            self.expect_operator("]")
            is_array = True
        return TypeName(name, tuple(modifiers), is_array, at)

    def typed_constant(self) -> Cast | None:
        """Take ``type 'text'`` if it is that."""
        place, at = self._place, self.at
        first, second = self.token, self.peek()
        if first.kind is not Kind.WORD:
            return None
        if second.kind is not Kind.STRING:
            # Names of several words, or with a modifier, are those of key words only.
            if first.text not in {*_TWO_WORDS, "timestamp", "time", "numeric", "interval"}:
                return None
            if second.kind is Kind.END or second.text in {".", ")", ","}:
                return None
        elif not self.is_name(of_function=True):
            return None
        try:
            type_name = self.type_name()
        except SqlError:
            if second.kind is Kind.STRING:
                raise
            self._place = place
            return None
        text = self.token
        if text.kind is not Kind.STRING:
            self._place = place
            return None
        self.advance()
        return Cast(Constant("string", text.text, text.at), type_name, at)
