"""
Every method of authentication, with right, wrong and missing credentials: as PostgreSQL by the same rules.

Two tables: what libpq is let in with, in its own words (it does not tell the SQLSTATE of a refusal), and
what is answered, field by field, to bytes that libpq would not send.  Servers of the wheel have no TLS.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

import psycopg
import pytest
from matrix_sources import SOURCES, WITH_TLS

from walsender.testing.certificates import Authority
from walsender.testing.postgres import Cluster
from walsender.testing.processes import WalsenderProcess, workspace
from walsender.testing.raw_client import RawConnection, startup_packet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matrix_sources import Source

    from walsender.testing.postgres import PostgresInstallation

_HBA: Final = """\
host      replication  refused   all  reject
host      replication  trusted   all  trust
host      replication  clear,unknown1,without1  all  password
host      replication  scram,plain,unknown2,without2  all  scram-sha-256
host      replication  either    all  md5
host      all          other     all  trust
"""
_HBA_TLS: Final = """\
hostssl   replication  secret    all  scram-sha-256
hostnossl replication  open      all  trust
hostssl   replication  standby   all  cert
hostssl   replication  anyone    all  trust          clientcert=verify-ca
hostssl   replication  twofold   all  scram-sha-256  clientcert=verify-full
hostssl   replication  mapped    all  cert           map=m
"""
# Who we are is known when the test runs.
_HBA_LOCAL: Final = """\
local     replication  {me},stranger  peer
local     replication  both,either    peer  map=peers
local     replication  trusted        trust
"""
_IDENT: Final = "m standby mapped\npeers {me} both\npeers nobody-such either\n"
_PASSWORDS: Final = ("clear", "scram", "plain", "either", "secret", "twofold")
_OTHERS: Final = (
    "refused",
    "trusted",
    "other",
    "open",
    "standby",
    "anyone",
    "mapped",
    "without1",
    "without2",
    "stranger",
    "both",
)
_OLDEST: Final = 14  # before it the words for encryption are others
_FIRST_DIRECT: Final = 17


class Servers(NamedTuple):
    """
    Two servers with the same rules, roles and passwords.

    :ivar files: with certificates, if there is TLS.
    """

    ours: WalsenderProcess
    real: Cluster
    files: Path
    major: int


def _make(installation: PostgresInstallation, space: Path, *, tls: bool) -> Servers:
    real = Cluster.create(installation, space / "data")
    me = pwd.getpwuid(os.geteuid()).pw_name
    hba = _HBA_LOCAL.format(me=me) + _HBA + (_HBA_TLS if tls else "")
    (space / "data" / "pg_hba.conf").write_text(
        f"local all postgres trust\nhost all postgres all trust\n{hba}"
    )
    (space / "hba").write_text(hba)
    for path in (space / "ident", space / "data" / "pg_ident.conf"):
        path.write_text(_IDENT.format(me=me))
    options = ["--hba-file", str(space / "hba"), "--ident-file", str(space / "ident")]
    options += ["--auth-file", str(space / "users")]
    if tls:
        authority = Authority(space)
        certificate, key = authority.issue("localhost", "server")
        authority.issue("standby")
        authority.issue("twofold")
        taken_back = authority.revoke(authority.issue("standby", "revoked")[0])
        Authority(space, "stranger").issue("standby", "forged")
        names = {"ssl_cert_file": certificate, "ssl_key_file": key, "ssl_ca_file": authority.path}
        names["ssl_crl_file"] = taken_back
        # PostgreSQL wants the key to be its own; libpq wants its keys to be ours.
        for path in names.values():
            installation.account.own(path)
        real.settings |= {"ssl": "on", **{name: str(path) for name, path in names.items()}}
        for name, path in names.items():
            options += [f"--{name.replace('_', '-')}", str(path)]
        options += ["--ssl", "on"]
    real.start()
    for name in _PASSWORDS:
        real.sql(f"CREATE ROLE {name} LOGIN REPLICATION PASSWORD 'p w-{name}'")
    for name in (*_OTHERS, me):
        real.sql(f'CREATE ROLE "{name}" LOGIN REPLICATION')
    verifiers = real.sql("SELECT rolname || ' ' || rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL")
    stored = dict(line.split(" ", 1) for line in verifiers.splitlines())
    stored["plain"] = "p w-plain"
    (space / "users").touch(mode=0o600)
    (space / "users").write_text("".join(f'"{name}" "{secret}"\n' for name, secret in stored.items()))
    (space / "wal").mkdir()
    for path in (space / "data" / "pg_wal").glob("0000*"):
        shutil.copy(path, space / "wal")
    options += ["--listen", f"unix:{space}/.s.PGSQL.{real.port}"]
    ours = WalsenderProcess(space / "wal", *options, log_file=space / "walsender.log", strict=False)
    return Servers(ours, real, space, installation.major)


_SOURCES: Final = [source for source in SOURCES if int(source.version.partition(".")[0]) >= _OLDEST]
_WITHOUT_TLS: Final = [source for source in _SOURCES if source.kind == "wheel"]
_WITH_TLS: Final = [source for source in _SOURCES if source in WITH_TLS]

_WITH_DIRECT_TLS: Final = [
    source for source in _WITH_TLS if int(source.version.partition(".")[0]) >= _FIRST_DIRECT
]


@pytest.fixture(autouse=True)
def noted() -> None:
    """Nothing of this goes into the table of versions."""


@pytest.fixture(scope="module")
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    """Both, over WAL of the same version."""
    source: Source = request.param
    with workspace() as space:
        made = _make(source.installation(), space, tls=source.kind != "wheel")
        try:
            yield made
            assert "Traceback" not in made.ours.log_text(), made.ours.log_text()
            assert "p w-" not in made.ours.log_text(), "a password in the log"
        finally:
            made.ours.stop()
            made.real.close()


class Case(NamedTuple):
    """
    What libpq is told to try.

    :ivar expected: what the error says; empty: it is in.
    :ivar options: of the connection; certificates by the names of their files.
    """

    name: str
    expected: str
    options: dict[str, str]


def _case(name: str, expected: str, /, **options: str) -> Case:
    return Case(name, expected, options)


def _wrong(user: str) -> str:
    return f'password authentication failed for user "{user}"'


_PLAIN: Final = [
    _case("trust", "", user="trusted"),
    _case("reject", 'pg_hba.conf rejects replication connection for host "127.0.0.1"', user="refused"),
    _case("no line", "no pg_hba.conf entry for replication connection from host", user="stranger"),
    _case("all is not replication", "no pg_hba.conf entry for replication connection", user="other"),
]
for _user in ("clear", "scram", "plain", "either"):
    _PLAIN += [
        _case(f"{_user}: right", "", user=_user, password=f"p w-{_user}"),
        _case(f"{_user}: wrong", _wrong(_user), user=_user, password="wrong"),
        _case(f"{_user}: missing", "no password supplied", user=_user),
        _case(f"{_user}: prefers binding", "", user=_user, password=f"p w-{_user}", channel_binding="prefer"),
        _case(
            f"{_user}: wants binding",
            "channel binding required",
            user=_user,
            password="x",
            sslmode="disable",
            channel_binding="require",
        ),
        _case(
            f"{_user}: wants SCRAM",
            'requirement "scram-sha-256" failed' if _user == "clear" else "",
            user=_user,
            password=f"p w-{_user}",
            require_auth="scram-sha-256",
        ),
    ]
_LOCAL: Final = [
    _case("peer: we", ""),
    _case("peer: another", 'Peer authentication failed for user "stranger"', user="stranger"),
    _case("peer: mapped", "", user="both"),
    _case("peer: not mapped", 'Peer authentication failed for user "either"', user="either"),
    _case("trust", "", user="trusted"),
    _case("no line", 'no pg_hba.conf entry for replication connection from host "[local]"', user="clear"),
]
for _user in ("unknown1", "unknown2", "without1", "without2"):
    _PLAIN.append(_case(_user, _wrong(_user), user=_user, password="p w"))

_SECRET: Final = {"user": "secret", "password": "p w-secret"}
_TLS: Final = [
    _case("TLS: trust", "", user="trusted", sslmode="require"),
    _case("TLS: reject", "SSL encryption", user="refused", sslmode="require"),
    _case("TLS: no line", "SSL encryption", user="open", sslmode="require"),
    _case("without TLS: no line", "no encryption", **_SECRET, sslmode="disable"),
    _case("without TLS: a line", "", user="open", sslmode="disable"),
    _case("prefers TLS", "", **_SECRET, sslmode="prefer"),
    _case("prefers TLS, and goes on without", "", user="open", sslmode="prefer"),
    _case("allows TLS", "", **_SECRET, sslmode="allow"),
    _case("TLS: wrong", _wrong("secret"), user="secret", password="wrong", sslmode="require"),
    _case("TLS: missing", "no password supplied", user="secret", sslmode="require"),
    _case("TLS: clear", "", user="clear", password="p w-clear", sslmode="require"),
    _case("TLS: unknown", _wrong("unknown2"), user="unknown2", password="x", sslmode="require"),
    *(
        _case(f"binding: {binding}", "", **_SECRET, sslmode="require", channel_binding=binding)
        for binding in ("require", "prefer", "disable")
    ),
    _case(
        "binding to trust",
        "channel binding required",
        user="trusted",
        channel_binding="require",
        sslmode="require",
    ),
    *(
        _case(f"{mode}: right", "", **_SECRET, host="localhost", sslmode=mode, sslrootcert="authority.crt")
        for mode in ("verify-ca", "verify-full")
    ),
    _case(
        "verify-ca: stranger",
        "certificate verify failed",
        **_SECRET,
        sslmode="verify-ca",
        sslrootcert="stranger.crt",
    ),
    _case(
        "verify-full: other name",
        "does not match host name",
        **_SECRET,
        sslmode="verify-full",
        sslrootcert="authority.crt",
    ),
    _case("cert: right", "", user="standby", sslmode="require", sslcert="standby"),
    _case(
        "cert: other",
        'certificate authentication failed for user "standby"',
        user="standby",
        sslmode="require",
        sslcert="twofold",
    ),
    _case("cert: none", "connection requires a valid client certificate", user="standby", sslmode="require"),
    _case("cert: forged", "unknown ca", user="standby", sslmode="require", sslcert="forged"),
    _case("cert: revoked", "certificate revoked", user="standby", sslmode="require", sslcert="revoked"),
    _case("cert: mapped", "", user="mapped", sslmode="require", sslcert="standby"),
    _case(
        "cert: not mapped",
        'certificate authentication failed for user "mapped"',
        user="mapped",
        sslmode="require",
        sslcert="twofold",
    ),
    _case("verify-ca: any", "", user="anyone", sslmode="require", sslcert="twofold"),
    _case(
        "verify-ca: none", "connection requires a valid client certificate", user="anyone", sslmode="require"
    ),
    _case("both: right", "", user="twofold", password="p w-twofold", sslmode="require", sslcert="twofold"),
    _case(
        "both: other certificate",
        _wrong("twofold"),
        user="twofold",
        password="p w-twofold",
        sslmode="require",
        sslcert="standby",
    ),
    _case(
        "both: wrong password",
        _wrong("twofold"),
        user="twofold",
        password="x",
        sslmode="require",
        sslcert="twofold",
    ),
]


_DIRECT: Final = {"sslmode": "require", "sslnegotiation": "direct"}
_AT_ONCE: Final = [
    _case("binding", "", **_SECRET, **_DIRECT, channel_binding="require"),
    _case("no binding", "", **_SECRET, **_DIRECT, channel_binding="disable"),
    _case("wrong", _wrong("secret"), user="secret", password="x", **_DIRECT),
]


def _outcome(case: Case, files: Path, port: int) -> str:
    """Return what libpq says of a connection; nothing if it is made."""
    options = {"host": "127.0.0.1", "passfile": str(files / "no"), "sslmode": "prefer", **case.options}
    certificate = options.pop("sslcert", "no")
    options |= {"sslcert": str(files / f"{certificate}.crt"), "sslkey": str(files / f"{certificate}.key")}
    if "sslrootcert" in options:
        options["sslrootcert"] = str(files / options["sslrootcert"])
    try:
        psycopg.connect(port=port, replication="true", connect_timeout=20, **options).close()
    except psycopg.OperationalError as error:
        return str(error).replace(str(port), "PORT").strip()
    return ""


def _check(servers: Servers, case: Case) -> None:
    ours = _outcome(case, servers.files, servers.ours.port)
    assert ours == _outcome(case, servers.files, servers.real.port)
    assert case.expected in ours
    assert bool(case.expected) == bool(ours), ours


def _named(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", _PLAIN, ids=_named)
@pytest.mark.parametrize("servers", _SOURCES, indirect=True, ids=str)
def test_libpq(servers: Servers, case: Case) -> None:
    """Without TLS, or with what libpq prefers."""
    _check(servers, case)


@pytest.mark.parametrize("case", _LOCAL, ids=_named)
@pytest.mark.parametrize("servers", _SOURCES, indirect=True, ids=str)
def test_unixSocket(servers: Servers, case: Case) -> None:
    """On a unix socket, where the system says who is there."""
    port, options = servers.real.port, {"user": pwd.getpwuid(os.geteuid()).pw_name, **case.options}
    told = []
    for directory in (servers.files, servers.real.socket_directory):
        there = case._replace(options={**options, "host": str(directory)})
        told.append(_outcome(there, servers.files, port).rpartition(" failed: ")[2])
    assert told[0] == told[1]
    assert case.expected in told[0]
    assert bool(case.expected) == bool(told[0]), told[0]


@pytest.mark.parametrize("servers", _WITHOUT_TLS, indirect=True, ids=str)
def test_noTLS(servers: Servers) -> None:
    """Who insists on TLS that is not there goes away."""
    _check(servers, _case("none", "server does not support SSL", user="trusted", sslmode="require"))


if _WITH_TLS:  # only the whole matrix has any

    @pytest.mark.parametrize("case", _TLS, ids=_named)
    @pytest.mark.parametrize("servers", _WITH_TLS, indirect=True, ids=str)
    def test_libpqWithTLS(servers: Servers, case: Case) -> None:
        """With TLS and certificates."""
        _check(servers, case)

    @pytest.mark.parametrize("case", _AT_ONCE, ids=_named)
    @pytest.mark.parametrize("servers", _WITH_DIRECT_TLS, indirect=True, ids=str)
    def test_direct(servers: Servers, case: Case) -> None:
        """With TLS from the first byte."""
        _check(servers, case)


def _first(text: bytes, mechanism: bytes = b"SCRAM-SHA-256") -> bytes:
    return mechanism + b"\0" + struct.pack("!i", len(text)) + text


#: What is said after the start-up packet of a user, message by message: type and body.
_RAW: Final = {
    "reject": ("refused", []),
    "no line": ("stranger", []),
    "password: wrong": ("clear", [(b"p", b"wrong\0")]),
    "password: unknown": ("unknown1", [(b"p", b"wrong\0")]),
    "password: empty": ("clear", [(b"p", b"\0")]),
    "password: nothing": ("clear", [(b"p", b"")]),
    "password: no NUL": ("clear", [(b"p", b"wrong")]),
    "password: two": ("clear", [(b"p", b"wrong\0wrong\0")]),
    "password: query": ("clear", [(b"Q", b"x\0")]),
    "password: terminate": ("clear", [(b"X", b"")]),
    "password: right": ("clear", [(b"p", b"p w-clear\0")]),
    "password: too long": ("clear", [(b"p", bytes(65536))]),
    "SASL: query": ("scram", [(b"Q", b"x\0")]),
    "SASL: too long": ("scram", [(b"p", bytes(1024))]),
    "SASL: nothing": ("scram", [(b"p", b"")]),
    "SASL: other mechanism": ("scram", [(b"p", _first(b"n,,n=,r=x", b"SCRAM-SHA-1"))]),
    "SASL: binding without TLS": (
        "plain",
        [(b"p", _first(b"p=x,,n=,r=x", b"SCRAM-SHA-256-PLUS"))],
    ),
    "SASL: no length": ("scram", [(b"p", b"SCRAM-SHA-256\0")]),
    "SASL: bytes behind": ("scram", [(b"p", _first(b"n,,n=,r=x") + b"x")]),
    "SASL: no first message": ("scram", [(b"p", b"SCRAM-SHA-256\0\xff\xff\xff\xff"), (b"p", b"")]),
    "SASL: negative": ("scram", [(b"p", b"SCRAM-SHA-256\0\xff\xff\xff\xfe")]),
    **{
        f"SCRAM first: {text!r}": ("scram", [(b"p", _first(text))])
        for text in (
            b"",
            b"n",
            b"x",
            b"\x80",
            b"nn",
            b"n,x",
            b"n,,",
            b"n,,n",
            b"n,,r=x",
            b"n,,n=,r=\x7f",
            b"n,,n=,r=x,",
            b"n,,n=,r=x,1",
            b"n,,n=,r=x,e",
            b"n,a=x,n=,r=x",
            b"n,,m=x,n=,r=x",
            b"n,,n=,r=x\0",
            b"p=tls-server-end-point,,n=,r=x",
        )
    },
    **{
        f"SCRAM last: {text!r}": (user, [(b"p", _first(b"y,,n=,r=x")), (b"p", text)])
        for user in ("scram", "plain", "unknown2", "without2", "either")
        for text in (
            b"",
            b"x",
            b"c=biws",
            b"c=eSws",
            b"c=eSws,r=x",
            b"c=eSws,r=x,p=x",
            b"c=eSws,r=x,p=" + b"A" * 43 + b"=",
            b"c=eSws,r=x,p=" + b"A" * 43 + b"=,x=y",
        )
    },
}


def _answers(port: int, user: str, messages: list[tuple[bytes, bytes]]) -> list[object]:
    """Return what is answered: kinds, and of errors all that a client may look at."""
    told: list[object] = []
    with contextlib.suppress(ConnectionError), RawConnection("127.0.0.1", port) as client:
        client.socket.sendall(startup_packet(user=user))
        for kind, body in [*messages, (b"", b"")]:
            for message in client.until(b"R", b"E"):
                if message.kind == b"E":
                    fields = message.fields()
                    told.append({letter: fields.get(letter) for letter in "SVCMDH"})
                elif message.kind == b"R":
                    told.append(message.body[:4])
            if kind:
                client.send(kind, body)
    return told


@pytest.mark.parametrize("name", _RAW)
@pytest.mark.parametrize("servers", _SOURCES, indirect=True, ids=str)
def test_bytes(servers: Servers, name: str) -> None:
    """Bytes that libpq would not send, and the fields of every refusal."""
    user, messages = _RAW[name]
    ours = _answers(servers.ours.port, user, messages)
    assert ours == _answers(servers.real.port, user, messages)
    assert ours, "nothing was said at all"


@pytest.mark.parametrize("servers", _SOURCES, indirect=True, ids=str)
def test_saltOfNobody(servers: Servers) -> None:
    """Who does not exist is shown a salt, the same each time, as PostgreSQL does."""
    for port in (servers.ours.port, servers.real.port):
        salts = set()
        for _ in range(2):
            with RawConnection("127.0.0.1", port) as client:
                client.socket.sendall(startup_packet(user="unknown2"))
                client.until(b"R")
                client.send(b"p", _first(b"n,,n=,r=x"))
                (message,) = client.until(b"R")
                nonce, salt, iterations = message.body[4:].split(b",")
                assert (len(nonce), len(salt), iterations) == (2 + 1 + 24, 2 + 24, b"i=4096")
                salts.add(salt)
        assert len(salts) == 1
