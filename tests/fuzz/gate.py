"""Who may come into a siege, and a SCRAM client that plays by the rules until it is told not to."""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.threads import deferToThreadPool

from walsender.auth.authorizer import HbaAuthorizer
from walsender.auth.hba_file import load_hba
from walsender.auth.ident import load_ident
from walsender.auth.stored_passwords import StoredPasswords
from walsender.auth.userlist import load_userlist

if TYPE_CHECKING:
    from protocol_helpers import ClockReactor

PASSWORD: Final = "secret"
NONCE: Final = b"fyko+d2lbbFgONRv9qkxdawL"
FIRST_BARE: Final = b"n=,r=" + NONCE

HBA: Final = "".join(
    f"{kind} replication {rule}\n"
    for rule in (
        "scram,unknown {} scram-sha-256",
        "plain,plain-unknown {} password",
        "evil {} reject",
        "all {here} trust",
    )
    for kind, rule in (
        ("local", rule.replace(" {here}", "").replace(" {}", "")),
        ("host", rule.replace("{here}", "127.0.0.1/8").replace("{}", "all")),
        ("host", rule.replace("{here}", "::1/128").replace("{}", "all")),
    )
)
USERS: Final = f'"scram" "{PASSWORD}"\n"plain" "{PASSWORD}"\n'


@cache
def _files() -> tuple[Any, Any, StoredPasswords]:
    with tempfile.TemporaryDirectory() as directory:
        contents = {
            "hba": HBA,
            "ident": "",
            "users": USERS,
        }
        paths = {}
        for name, content in contents.items():
            path = Path(directory, name)
            path.write_text(content)
            path.chmod(0o600)
            paths[name] = str(path)
        return (
            load_hba(paths["hba"]),
            load_ident(paths["ident"]),
            StoredPasswords(load_userlist(paths["users"])),
        )


def authorizer(reactor: ClockReactor) -> HbaAuthorizer:
    """Return what asks scram, unknown and plain for a password, refuses evil, and trusts this machine."""

    def run_in_thread(function: Any, *arguments: Any) -> Any:
        return deferToThreadPool(reactor, reactor.pool, function, *arguments)  # type: ignore[arg-type]

    return HbaAuthorizer(*_files(), run_in_thread)


def first_message(mechanism: bytes = b"SCRAM-SHA-256", header: bytes = b"n,,") -> bytes:
    """Return the body of a SASLInitialResponse."""
    data = header + FIRST_BARE
    return mechanism + b"\0" + struct.pack(">i", len(data)) + data


def final_message(server_first: bytes, *, binding: bytes = b"biws", spoil: int = 0) -> bytes:
    """
    Return the client's answer to *server_first*.

    :param spoil: 0: a good one; otherwise what is wrong with it.
    """
    attributes = dict(part.split(b"=", 1) for part in server_first.split(b",") if b"=" in part)
    nonce = attributes.get(b"r", NONCE)
    salt = base64.b64decode(attributes.get(b"s", b""))
    rounds = int(attributes.get(b"i", b"1"))
    password = PASSWORD.encode() if spoil != 1 else b"wrong"
    if spoil == 2:
        nonce = nonce[:-1]
    without_proof = b"c=" + binding + b",r=" + nonce
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, rounds)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    conversation = b",".join((FIRST_BARE, server_first, without_proof))
    signature = hmac.digest(hashlib.sha256(client_key).digest(), conversation, "sha256")
    proof = base64.b64encode(bytes(one ^ other for one, other in zip(client_key, signature, strict=True)))
    if spoil == 3:
        proof = proof[:-4]
    elif spoil == 4:
        proof += b",x=y"
    return without_proof + b",p=" + proof
