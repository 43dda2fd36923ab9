"""The names of character encodings that a client may ask for."""

from __future__ import annotations

import re
from typing import Final

# PostgreSQL's own name of each, then others of it, all without what separates words.
# Source: PostgreSQL, src/common/encnames.c; compared with what 18 makes of each.
_ENCODINGS: Final = {
    "BIG5": "win950 windows950",
    "EUC_CN": "",
    "EUC_JIS_2004": "",
    "EUC_JP": "",
    "EUC_KR": "",
    "EUC_TW": "",
    "GB18030": "",
    "GBK": "win936 windows936",
    "ISO_8859_5": "",
    "ISO_8859_6": "",
    "ISO_8859_7": "",
    "ISO_8859_8": "",
    "JOHAB": "",
    "KOI8R": "koi8",
    "KOI8U": "",
    "LATIN1": "iso88591",
    "LATIN10": "iso885916",
    "LATIN2": "iso88592",
    "LATIN3": "iso88593",
    "LATIN4": "iso88594",
    "LATIN5": "iso88599",
    "LATIN6": "iso885910",
    "LATIN7": "iso885913",
    "LATIN8": "iso885914",
    "LATIN9": "iso885915",
    "MULE_INTERNAL": "",
    "SHIFT_JIS_2004": "",
    "SJIS": "mskanji shiftjis win932 windows932",
    "SQL_ASCII": "",
    "UHC": "win949 windows949",
    "UTF8": "unicode",
    "WIN1250": "windows1250",
    "WIN1251": "win windows1251",
    "WIN1252": "windows1252",
    "WIN1253": "windows1253",
    "WIN1254": "windows1254",
    "WIN1255": "windows1255",
    "WIN1256": "windows1256",
    "WIN1257": "windows1257",
    "WIN1258": "abc tcvn tcvn5712 vscii windows1258",
    "WIN866": "alt windows866",
    "WIN874": "windows874",
}


def _bare(name: str) -> str:
    return re.sub("[^0-9a-z]", "", name.lower())


_OFFICIAL: Final = {
    alias: name for name, others in _ENCODINGS.items() for alias in (_bare(name), *others.split())
}


def encoding_name(text: str) -> str | None:
    """Return PostgreSQL's own name of the encoding that a client calls *text*; ``None``: there is none."""
    return _OFFICIAL.get(_bare(text))
