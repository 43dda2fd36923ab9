"""
The files that say who may come in, read by us and by PostgreSQL.

``pg_hba_file_rules`` and ``pg_ident_file_mappings`` say what PostgreSQL makes of a file, line by
line.  What it refuses we refuse, in its words; what it takes we take, and mean the same by it.  Where
that is not so on purpose, the line stands in a table of its own.
"""

from __future__ import annotations

import json
import random
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from versions import VERSIONS

from walsender.auth import AccessFileError, ConnectionRequest, HbaLine, Method, load_hba, load_ident
from walsender.auth.hba import ANYWHERE, OwnAddresses, Subnet
from walsender.auth.regex import InvalidRegex, compile_regex
from walsender.testing.installation import PostgresInstallation
from walsender.testing.postgres import Cluster, started
from walsender.testing.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

RULE: Final = ("type", "database", "user_name", "address", "netmask", "auth_method", "options")

HBA: Final = r"""
local all all trust
local all all peer map=m
local all all ident map=m
local all all ident map=
local	replication,"replication"	"all",all , bob	scram-sha-256   # comment, "quoted
local "a b","c,d","e#f","g""h" "/^x" md5
local a"b c"d @"users" trust
local sameuser,db all reject
local all "+notagroup" trust
local +db all trust
local "samerole" all trust
local "@users" all trust
local @ all trust
local @users,last all trust
local @missing all trust
local @broken all trust
local @empty all all trust
local @loop all trust
local "unclosed all trust
local all "" trust
local , all trust
local all,, bob trust
local all all \
  \
 trust
local all all trust # \
  still a comment
local "a \
b" all trust
local all all
local all
local
bogus all all trust
"local" all all trust
local,host all all trust
LOCAL all all trust
local all all trust,md5
local all all Trust
local all all bogus
local all all bsd
local all all sspi
local all all cert
local all all trust map=m
local all all trust clientcert=verify-full
local all all trust clientname=CN
local all all trust noequals
local all all trust what=ever
local all all trust a=b c=d
local all all trust "a b=c"
local all all trust ldapserver=x
local all all trust ldapurl=x
local all all trust pamservice=x
local all all trust radiusservers=x
local all all trust krb_realm=x
local all all trust include_realm=1
local all all trust compat_realm=1
local all all trust upn_username=1
local all all peer map=a map=b,map=c
host all all 127.0.0.1/32 trust
host all all 127.0.0.1/33 trust
host all all 127.0.0.1/-1 trust
host all all 127.0.0.1/+8 trust
host all all "127.0.0.1/ 8" trust
host all all 127.0.0.1/ trust
host all all 127.0.0.1/8x trust
host all all 127.0.0.1/0 trust
host all all 10.1.2.3/8 trust
host all all 127.1/8 trust
host all all 0x7f.1/8 trust
host all all 2130706433/8 trust
host all all 256.1.1.1/8 trust
host all all ::1/128 trust
host all all ::1/129 trust
host all all fe80::1%1/64 trust
host all all ::ffff:1.2.3.4/100 trust
host all all 127.0.0.1 255.255.255.255 trust
host all all 127.0.0.1 255.0.255.0 trust
host all all 127.0.0.1 ffff:: trust
host all all ::1 ffff:: md5
host all all 127.0.0.1 notamask trust
host all all 127.0.0.1 trust
host all all 127.0.0.1
host all all
host all all 127.0.0.1/32
host all all 127.0.0.1/32,10.0.0.0/8 trust
host all all 127.0.0.1 255.0.0.0,255.0.0.0 trust
host all all all reject
host all all ALL/8 trust
host all all samehost password
host all all samenet scram-sha-256
host all all name/8 trust
host all all /8 trust
host all all all peer
host all all all cert
hostnossl all all all md5
hostgssenc all all all trust
hostnogssenc all all all trust
host all all all trust clientcert=verify-ca
hostssl all all all trust
hostssl all all all trust clientcert=verify-ca
hostssl all all all scram-sha-256 clientcert=verify-full clientname=DN
hostssl all all all trust clientcert=1
hostssl all all all trust clientcert=no-verify
hostssl all all all trust clientname=cn
host /^db\d+$ /x{2,3}y? all trust
host all /a+(b|c)?$ all trust
host all /( all trust
host all /) all trust
host all /[ all trust
host all /[z-a] all trust
host all /[[:foo:]] all trust
host all /[[:alpha:]_]*[]x] all trust
host all /[[.x.]-z] all trust
host all /[[.long.]] all trust
host all /a** all trust
host all /*a all trust
host all /(*a) all trust
host all /a|*b all trust
host all /^* all trust
host all /a{2 all trust
host all "/a{2,1}" all trust
host all /a{256} all trust
host all /a{ all trust
host all /{a all trust
host all /a{x} all trust
host all /\ all trust
host all "/a\" all trust
host all /\q all trust
host all /\x41\u0042\y\m\M\Y\A\Z\b\B\e\cA\012 all trust
host all /\uZZZZ all trust
host all /(?:a)(?=b)(?!c)(?<=d)(?<!e) all trust
host all /(?=a)* all trust
host all /(?P<n>a) all trust
host all /(?i)abc all trust
host all /***=a.b( all trust
host all /***:a.b all trust
host all /***a all trust
host all / all trust
host all /() all trust
host all /a|| all trust
host all /\d\s\w\D\S\W[\d\s\w] all trust
host all /a*?b+?c?? all trust
host all /ä[ä-ü]$ all trust
include good.conf
include "good.conf"
include missing.conf
include_if_exists missing.conf
include_if_exists good.conf
include broken.conf
include_dir conf.d
include_dir missing.d
include_dir ""
include self.conf
include deep0.conf
include good.conf extra
local all all trust includes=x
""".removeprefix("\n")

FILES: Final = {
    "users": 'alice, bob\n"carol, c" # comment\n\ndave\n',
    "broken": "a\n@missing\n",
    "empty": "# nothing\n",
    "loop": "x @loop\n",
    "good.conf": "local good all trust\n\n  local good2 all reject\n",
    "broken.conf": "local one all trust\nlocal two\n@missing\nlocal three all trust\n",
    "self.conf": "local before all trust\ninclude self.conf\nlocal after all trust\n",
    "conf.d/b.conf": "local b all trust\n",
    "conf.d/a.conf": "local a all trust\ninclude c.notconf\n",
    "conf.d/c.notconf": "local c all trust\n",
    "conf.d/.hidden.conf": "local hidden all trust\n",
    **{f"deep{n}.conf": f"include deep{n + 1}.conf\n" for n in range(12)},
    "deep12.conf": "local deep all trust\n",
}

# What PostgreSQL takes and we do not, with what we say of it.
REFUSED_BY_US: Final = {
    "local samerole,db all trust": '"samerole" is not supported',
    "local samegroup all trust": '"samegroup" is not supported',
    "local all bob,+group trust": '"+group" is not supported',
    "host all all localhost trust": 'host name "localhost" is not supported',
    "host all all .example.com trust": 'host name ".example.com" is not supported',
    "host all all ALL trust": 'host name "ALL" is not supported',
    'host all all "all" trust': 'host name "all" is not supported',
    "host all all all ident": 'invalid authentication method "ident": not supported by this build',
    "host all all all radius radiusservers=127.0.0.1 radiussecrets=x": (
        'invalid authentication method "radius": not supported by this build'
    ),
    r"local all /(a)\1 trust": "back references are not supported",
    "local all /(a*)* trust": "it could take too long to match",
    "local all /(?n)a trust": "the embedded option (?n) is not supported",
}

IDENT: Final = r"""
m system role
m system "role with, blank" surplus fields
m system all
m system "all"
"m n" /^(.*)@example\.com$ \1
m /^(x)|y$ a\1b
m /^x$ all
m /^x$ /^y
m /( role
m system /[
m a,b role
m,n a role
m a role,role
m system
m
m @users role
m @empty role role
include more.conf
include missing.conf
""".removeprefix("\n")

IDENT_REFUSED_BY_US: Final = {
    "m system +group": '"+group" is not supported',
    r"m /^x$ \1": 'regular expression "^x$" has no subexpressions as requested by backreference in "\\1"',
}

# Methods and record types that the server's build lacks.  It warns of such a record, or refuses it.
NOT_IN_BUILD: Final = (
    "hostssl record cannot match because",
    "hostgssenc record cannot match because",
    'invalid authentication method "cert": not supported by this build',
)


@pytest.fixture(scope="session", params=VERSIONS)
def server(request: pytest.FixtureRequest, archive_space: Path) -> Any:
    """A server, for what it makes of files; it is started with files of its own."""
    installation = PostgresInstallation.embedded(request.param)
    directory = archive_space / f"hba-{request.param}"
    with started(Cluster.create(installation, directory)) as cluster:
        yield cluster


def write(cluster: Cluster, name: str, content: str) -> Path:
    """Write a file, and those that it includes, into the data directory."""
    directory = cluster.data_directory
    for path, text in {**FILES, "more.conf": "m x y\n", name: content}.items():
        file = directory / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        file.parent.chmod(0o755)
        cluster.installation.account.own(file.parent)
    directory.chmod(0o700)
    return directory / name


def rows(cluster: Cluster, view: str) -> list[dict[str, Any]]:
    """Return a view's rows."""
    answer = cluster.sql(f"SELECT coalesce(json_agg(v), '[]') FROM {view} v")
    found: list[dict[str, Any]] = json.loads(answer)
    return found


def places(found: Sequence[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    """Return rows by file and line."""
    return {(row["file_name"], row["line_number"]): row for row in found}


def as_rule(line: HbaLine) -> dict[str, Any]:
    """Return a line of ours as ``pg_hba_file_rules`` shows one."""
    address = netmask = None
    if isinstance(line.address, OwnAddresses):
        address = line.address.value
    elif line.address == ANYWHERE:
        address = "all"
    elif line.address is not None:
        (subnet,) = line.address
        assert isinstance(subnet, Subnet)
        address, netmask = str(subnet.address), str(subnet.mask)
    options = []
    if line.map_name is not None:
        options.append(f"map={line.map_name}")
    if line.client_cert is not None:
        options.append(f"clientcert={line.client_cert.value}")
    return {
        "type": line.connection_type.value,
        "database": [name.text for name in line.databases],
        "user_name": [name.text for name in line.users],
        "address": address,
        "netmask": netmask,
        "auth_method": line.method.value,
        "options": options or None,
    }


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of ``pg_hba_file_rules``, written as `as_rule` writes."""
    rule = {name: row[name] for name in RULE}
    if row["netmask"]:
        rule["address"] = str(ip_address(row["address"]))  # ::ffff:1.2.3.4
    rule["options"] = [option for option in row["options"] or [] if option != "map="] or None
    return rule


def problems_of(load: Callable[[str], object], path: Path) -> dict[tuple[str | None, int], list[str]]:
    """Return what *load* says of the file *path*, by file and line."""
    with pytest.raises(AccessFileError) as caught:
        load(str(path))
    found: dict[tuple[str | None, int], list[str]] = {}
    for problem in caught.value.problems:
        found.setdefault((problem.file, problem.line), []).append(problem.message)
    return found


def worded(message: str) -> str:
    """Return *message* less what differs: our methods are fewer, and the log says more than the view."""
    for beginning in ('authentication option "map" is only valid for', "could not open directory"):
        if message.startswith(beginning):
            return beginning
    return "could not open directory" if "could not open configuration directory" in message else message


def without(path: Path, bad: Collection[tuple[str | None, int]]) -> None:
    """Make comments of the lines *bad*, wherever they stand; none of them is continued."""
    for name in {file for file, _ in bad if file is not None}:
        lines = Path(name).read_text().split("\n")
        Path(name).write_text(
            "\n".join(f"#{line}" if (name, number) in bad else line for number, line in enumerate(lines, 1))
        )


def test_hbaLinesAsPostgres(server: Cluster) -> None:
    """Each line is refused in PostgreSQL's words, or taken and means the same."""
    path = write(server, "pg_hba.conf", HBA)
    theirs = places(rows(server, "pg_hba_file_rules"))
    refused = problems_of(load_hba, path)
    for place, row in theirs.items():
        taken = row["type"] is not None
        if row["error"] is not None and row["error"].startswith(NOT_IN_BUILD):
            continue  # told below, or nothing is known of the rest of the line
        assert [worded(message) for message in refused.get(place, [])] == (
            [] if taken else [worded(row["error"])]
        ), place
    assert set(refused) <= set(theirs)
    # What is left means the same.
    without(path, set(refused))
    ours = {(line.file, line.number): as_rule(line) for line in load_hba(str(path))}
    theirs = places(rows(server, "pg_hba_file_rules"))
    expected = {place: shown(row) for place, row in theirs.items() if row["type"]}
    assert len(ours) > 60
    assert {place: rule for place, rule in ours.items() if place in expected} == expected
    for place in set(ours) - set(expected):
        assert theirs[place]["error"].startswith(NOT_IN_BUILD), place


def test_hbaLinesRefusedByUs(server: Cluster) -> None:
    """What PostgreSQL takes and we cannot keep is refused, with a reason."""
    path = write(server, "pg_hba.conf", "\n".join(REFUSED_BY_US))
    errors = [row["error"] for row in rows(server, "pg_hba_file_rules")]
    assert errors == [None] * len(REFUSED_BY_US)
    found = problems_of(load_hba, path)
    for number, reason in enumerate(REFUSED_BY_US.values(), 1):
        (message,) = found[str(path), number]
        assert reason in message


def test_identLinesAsPostgres(server: Cluster) -> None:
    """Each line of a map is refused in PostgreSQL's words, or taken and means the same."""
    path = write(server, "pg_ident.conf", IDENT)
    theirs = places(rows(server, "pg_ident_file_mappings"))
    refused = problems_of(load_ident, path)
    expected = {place: [row["error"]] for place, row in theirs.items() if row["error"] is not None}
    assert refused == expected
    without(path, set(refused))
    ours = {
        (line.file, line.number): (line.map_name, line.system_name.text, line.role.text)
        for line in load_ident(str(path)).lines
    }
    rest = places(rows(server, "pg_ident_file_mappings"))
    assert ours == {
        place: (row["map_name"], row["sys_name"], row["pg_username"]) for place, row in rest.items()
    }


def test_identLinesRefusedByUs(server: Cluster) -> None:
    """A line of a map that PostgreSQL takes and that lets nobody in, or that we cannot keep, is refused."""
    path = write(server, "pg_ident.conf", "\n".join(IDENT_REFUSED_BY_US))
    assert [row["error"] for row in rows(server, "pg_ident_file_mappings")] == [None, None]
    found = problems_of(load_ident, path)
    for number, reason in enumerate(IDENT_REFUSED_BY_US.values(), 1):
        (message,) = found[str(path), number]
        assert reason in message


MATCHING: Final = r"""
local replication all reject
local "replication" all reject
local all local_user trust
host sameuser same all trust
host "all" all all trust
host all,replication "/^re(jec)?t$" all reject
host replication "all" all trust
host replication repl,/^std\d 127.0.0.1 255.0.255.0 trust
host /^x.*y$ "/,$" 127.0.0.0/8 password
host replication md 127.0.0.9/32 trust
host replication md ::1/128 reject
hostssl all tls all reject
hostnossl all tls all md5
hostgssenc all gss all reject
hostnogssenc all gss all scram-sha-256
host db same,here samehost trust
host db net samenet trust
host all nobody 10.0.0.0/8 trust
host all a"b"c,"q""q" all trust
""".removeprefix("\n")

# User, database (None: physical replication), over TCP or not.
CONNECTIONS: Final = (
    ("anybody", None, False),
    ("local_user", "db", False),
    ("local_user", "replication", False),
    ("local_user", None, False),
    ("other", "db", False),
    ("same", "same", True),
    ("same", "db", True),
    ("same", "other", True),
    ("anybody", "all", True),
    ("reject", "db", True),
    ("ret", None, True),
    ("retx", None, True),
    ("all", None, True),
    ("repl", None, True),
    ("std1", None, True),
    ("xstd1", None, True),
    ("repl", "replication", True),
    ("u,", "x\ny", True),
    ("u,", "xy", True),
    ("u,", "axy", True),
    ("u,,v", "xy", True),
    ("md", None, True),
    ("tls", "db", True),
    ("gss", "db", True),
    ("here", "db", True),
    ("net", "db", True),
    ("nobody", "db", True),
    ("abc", "db", True),
    ('q"q', "db", True),
    ("qq", "db", True),
)


def outcome(cluster: Cluster, user: str, database: str | None, *, tcp: bool) -> Method | None:
    """Return what PostgreSQL asks of a connection, by the effects; ``None`` if no line is for it."""
    target = {"dbname": database} if database is not None else {"replication": "true"}
    host = "127.0.0.1" if tcp else str(cluster.socket_directory)
    try:
        psycopg.connect(host=host, port=cluster.port, user=user, sslmode="disable", **target).close()
    except psycopg.OperationalError as error:
        text = str(error)
        if "no pg_hba.conf entry" in text:
            return None
        if "pg_hba.conf rejects" in text:
            return Method.REJECT
        if "no password supplied" in text:
            return Method.PASSWORD
        assert "does not exist" in text, text
    return Method.TRUST


def test_firstMatchAsPostgres(server: Cluster) -> None:
    """The same line decides over a connection as in PostgreSQL."""
    path = server.data_directory / "pg_hba.conf"
    before = path.read_text()
    asks = {Method.PASSWORD, Method.MD5, Method.SCRAM_SHA_256}
    try:
        # What the fixture itself needs stands before, for a role of that name only.
        write(server, "pg_hba.conf", f"local all postgres trust\n{MATCHING}")
        server.sql("SELECT pg_reload_conf()")
        wait_until(lambda: outcome(server, "anybody", None, tcp=False) is Method.REJECT, 20, "the reload")
        rules = load_hba(str(path))
        for user, database, tcp in CONNECTIONS:
            request = ConnectionRequest(
                ip_address("127.0.0.1") if tcp else None, user, database or "", replication=database is None
            )
            line = rules.find(request)
            method = None if line is None else Method.PASSWORD if line.method in asks else line.method
            assert method is outcome(server, user, database, tcp=tcp), (user, database, tcp)
    finally:
        path.write_text(before)


_TRY: Final = r"""
CREATE FUNCTION pg_temp.try(name text, expression text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN (name COLLATE "C" ~ expression)::text;
EXCEPTION WHEN invalid_regular_expression THEN
    RETURN sqlerrm;
END $$
"""
PIECES: Final = (
    *(
        "a",
        "b",
        "ab",
        "A",
        "1",
        "_",
        "-",
        ".",
        ".",
        "^",
        "$",
        "|",
        "(",
        ")",
        "(?:",
        "(?=",
        "(?!",
        "(?<=",
        "(?<!",
    ),
    *(
        "*",
        "+",
        "?",
        "*?",
        "+?",
        "??",
        "{2}",
        "{1,}",
        "{0,2}",
        "{",
        "}",
        "[ab]",
        "[^a]",
        "[a-z]",
        "[[:digit:]_]",
    ),
    *(
        "[]a]",
        "[^]a]",
        "[a-]",
        "[-a]",
        "[[.-.]a]",
        "[[=a=]]",
        "[\\d-]",
        "[",
        "]",
        "\\d",
        "\\w",
        "\\S",
        "\\y",
        "\\m",
    ),
    *(
        "\\M",
        "\\Y",
        "\\A",
        "\\Z",
        "\\b",
        "\\x61",
        "\\u0062",
        "\\.",
        "\\-",
        "\\_",
        "[[:<:]]",
        "[[:>:]]",
        "\\12",
        "\\0",
    ),
)
NAMES: Final = (
    "",
    "a",
    "b",
    "ab",
    "aab",
    "abab",
    "A",
    "a1",
    "1",
    "a-b",
    "a_b",
    "-",
    "b.a",
    "a b",
    "xay",
    "a\n",
    "]",
)


def test_regularExpressionsAsPostgres(server: Cluster) -> None:
    """An expression matches the names that it matches in PostgreSQL, and is refused in its words."""
    # A fixed seed: what is tested must not change from run to run.
    chance = random.Random(1)
    expressions = {"".join(chance.choices(PIECES, k=chance.randint(1, 6))) for _ in range(4000)}
    pairs = [(name, expression) for expression in sorted(expressions) for name in NAMES]
    host = str(server.socket_directory)
    with psycopg.connect(host=host, port=server.port, user="postgres", dbname="postgres") as connection:
        connection.execute(_TRY)
        rows = connection.execute(
            "SELECT pg_temp.try(p->>0, p->>1) FROM json_array_elements(%s::json) p", [json.dumps(pairs)]
        ).fetchall()
    ours = []
    for name, expression in pairs:
        try:
            ours.append("true" if compile_regex(expression).search(name) else "false")
        except InvalidRegex as error:
            ours.append(str(error))
    judged = 0
    for pair, our, (their,) in zip(pairs, ours, rows, strict=True):
        if "too long" not in our and "not supported" not in our:
            judged += 1
            # Of two things that are wrong the one or the other is told.
            refused = our not in {"true", "false"}
            assert their.startswith("invalid regular expression") if refused else our == their, pair
    assert judged > 50_000
