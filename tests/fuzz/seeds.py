"""
The seeds that the fuzzer begins with: good conversations and texts, and the known bad ones.

``python seeds.py`` writes them to ``corpus/TARGET/NAME``; a test sees that what is there is what this makes.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

from byte_script import scripted
from gate import FIRST_BARE
from parsers import VERSIONS as GRAMMARS
from siege import VERSIONS
from vocabulary import COMMANDS, PARAMETERS

CORPUS: Final = Path(__file__).with_name("corpus")


FIRST: Final = b"n,," + FIRST_BARE


def _startup(*pairs: bytes, code: int = 0x30000) -> bytes:
    return b"\0" + struct.pack(">I", code) + b"".join(pair + b"\0" for pair in pairs) + b"\0"


def _sieges() -> dict[str, bytes]:
    found = {}
    for version in VERSIONS:
        found[f"stream-{version or 85000}"] = scripted(
            version, ("come_in",), ("stream", 1), ("read", 999), ("report", 6), ("grow", 9999), ("read_all",),
            ("report", 1, 2), ("end_copy",), ("read_all",), ("end_copy", 6), ("leave",),
        )  # fmt: skip
    found["commands"] = scripted(180000, ("come_in",), *(("command", i, i) for i in range(len(COMMANDS))))
    found["parameters"] = scripted(
        180000, *(deed for i in range(len(PARAMETERS)) for deed in (("connect",), ("start_up", i, i)))
    )
    found["protocols"] = scripted(
        180000, *(deed for i in range(10) for deed in (("connect",), ("start_up", i * len(PARAMETERS), i)))
    )
    found["encryption"] = scripted(
        180000,
        *(deed for i in range(5) for deed in (("connect",), ("ask_encryption", i * 6, 0), ("come_in",))),
    )
    found["encryption-forever"] = scripted(180000, *(("ask_encryption", 4 + 5 * i, 0) for i in range(40)))
    found["second-startup"] = scripted(
        180000, ("come_in",), ("start_up", 1), ("command",), ("start_up", 2, 2)
    )
    found["passwords"] = scripted(
        180000, *(("give_password", i, i) for i in range(7)), ("come_in",), ("give_password",)
    )
    found["lengths"] = scripted(
        180000,
        *(
            deed
            for kind in b"QdcpXS"
            for length in (0, 3, 4, 5, 10_001, 65_537, (1 << 20) + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
            for deed in (("connect",), ("come_in",), ("lie", kind, 0, length))
        ),
    )
    found["large"] = scripted(180000, ("come_in",), *(("large", i, i) for i in range(10)))
    found["silent"] = scripted(180000, ("connect",), *(("pass_time", 9),) * 8)
    found["cancel"] = scripted(
        180000, ("come_in",), ("stream",), ("connect", 1), ("cancel", 2), ("read_all",)
    )
    scram, unknown, plain, evil = (len(PARAMETERS) - n for n in (4, 3, 2, 1))
    for name, user in (("scram", scram), ("scram-unknown", unknown)):
        found[name] = scripted(
            180000,
            ("start_up", user),
            ("begin_scram",),
            ("end_scram",),
            ("command",),
            ("stream",),
            ("read_all",),
        )
    found["scram-wrong"] = scripted(
        180000,
        *(
            deed
            for i in range(16)
            for deed in (("start_up", scram), ("begin_scram", i, i), ("end_scram", i, i))
        ),
    )
    # PgBouncer's CVE-2026-107350.
    found["second-startup-in-scram"] = scripted(
        180000, ("start_up", scram), ("begin_scram",), ("start_up", plain), ("end_scram",), ("command",)
    )
    found["password"] = scripted(
        180000, ("start_up", plain), ("hold_threads", 1), ("give_password",), ("command",), ("leave",),
        ("start_up", plain), ("give_password", 0, 2), ("hold_threads",), ("start_up", evil),
    )  # fmt: skip
    found["slow-disk"] = scripted(
        180000,
        ("come_in",),
        ("hold_threads", 1),
        ("command", 8),
        ("command", 12),
        ("leave",),
        ("hold_threads",),
    )
    return found


def _texts() -> dict[str, dict[str, bytes]]:
    texts = [text.format(name="a", number=1, lsn="0/200000") for text in COMMANDS]
    return {
        "command": {
            f"{number}": bytes((number % len(GRAMMARS),)) + text.encode() for number, text in enumerate(texts)
        },
        "first_command": {"identify": b"IDENTIFY_SYSTEM", "start": b"START_REPLICATION 0x1/ -2z"},
        "startup_options": {
            str(number): parameters["options"].encode()
            for number, parameters in enumerate(PARAMETERS)
            if "options" in parameters
        },
        "startup_packet": {
            "good": _startup(b"user", b"a", b"replication", b"true"),
            "odd": _startup(b"user"),
            "extension": _startup(b"_pq_.x", b"", b"user", b"a"),
            "ssl": b"\0" + struct.pack(">I", 80877103),
            "gss": b"\0" + struct.pack(">I", 80877104),
            "cancel": b"\0" + struct.pack(">IIi", 80877102, 1, 2),
        },
        "framing": {
            "query": b"\0Q\0\0\0\x06a\0X\0\0\0\x04",
            "copy": b"\1d\0\0\0\x05rc\0\0\0\x04",
            "password": b"\2p\0\0\0\x06a\0",
            "overflow": b"\3p\x80\0\0\0",
        },
        "packets": {
            "ssl": struct.pack(">II", 8, 80877103),
            "overflow": b"\xff\xff\xff\xff",
            "none": bytes(4),
        },
        "standby": {
            "status": b"\x02r" + bytes(33),
            "feedback": b"\x0ch" + bytes(24),
            "old": b"\x00r" + bytes(32),
        },
        "scram": {
            "good": b"\0" + FIRST + b"\0c=biws,r=fyko+d2lbbFgONRv9qkxdawLnonce,p=" + b"A" * 43 + b"=",
            "bound": b"\1p=tls-server-end-point,,"
            + FIRST[3:]
            + b"\0c=cD10bHMtc2VydmVyLWVuZC1wb2ludCwsAQ==,r=x,p=AA==",
        },
        "regex": {"role": b"^(.*)@example\\.com$", "slow": b"(a+)+$", "class": b"[[:alpha:]]{1,3}|a*?"},
        "hba": {
            "good": b'local all all trust\nhostssl replication "a",/b all cert clientname=DN\n',
            "mask": b"host all all 10.0.0.0 255.0.0.0 md5 # comment\nhost all all samenet \\\npeer map=x\n",
        },
        "ident": {"good": b'map /^(.*)@x$ \\1\nmap "a b" all\n'},
        "userlist": {"plain": b'"a" "b""c"\n', "verifier": b'"a" "SCRAM-SHA-256$4096:YQ==$YQ==:YQ=="\n; x\n'},
        "parameters": {"timeout": b"\0wal_sender_timeout\0001min", "name": b"\x09application_name\0\xff"},
    }


def seeds() -> dict[str, bytes]:
    """Return all seeds by their path below the corpus."""
    found = {f"siege/{name}": script for name, script in _sieges().items()}
    for target, texts in _texts().items():
        found |= {f"{target}/{name}": text for name, text in texts.items()}
    return found


if __name__ == "__main__":
    for path, content in seeds().items():
        file = CORPUS / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
