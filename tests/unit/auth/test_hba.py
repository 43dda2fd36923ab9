"""Rules and what they are about; tests/integration/test_hba_like_postgres.py asks PostgreSQL the same."""

from __future__ import annotations

import errno
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, NoReturn

from auth_helpers import loaded, problems
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walsender.auth import (
    THIS_MACHINE,
    ClientCert,
    ClientName,
    ConnectionRequest,
    HbaLine,
    HbaRules,
    Method,
    TlsInfo,
    load_hba,
    own_addresses,
)
from walsender.auth.own_addresses import own_interfaces
from walsender.errors import OutOfResources

if TYPE_CHECKING:
    from ipaddress import IPv4Interface, IPv6Interface

OWN = [ip_interface("192.0.2.1/24"), ip_interface("2001:db8::1/64")]
WORDS = [
    *(
        "local",
        "host",
        "hostssl",
        "all",
        "replication",
        "sameuser",
        ",",
        "trust",
        "md5",
        "cert",
        "peer",
        "=",
        "@x",
    ),
    *("127.0.0.1/8", "::1", "255.0.0.0", "samenet", "/a+", "map=", "clientcert=", "verify-ca", "include"),
    *('"', '""', "#", "\\", "\n", "x"),
]


def own() -> list[IPv4Interface | IPv6Interface]:
    """Return the addresses of the machine that the tests are about."""
    return OWN


def request(
    peer: str | None = "127.0.0.1",
    user: str = "user",
    database: str | None = None,
    tls: TlsInfo | None = None,
) -> ConnectionRequest:
    """Return what is known of a client; without *database* it wants physical replication."""
    address = None if peer is None else ip_address(peer)
    return ConnectionRequest(address, user, database or "", replication=database is None, tls=tls)


def line_of(content: str) -> HbaLine:
    """Return the only rule of a file."""
    (line,) = loaded(load_hba, content)
    return line


class MatchingTests(SynchronousTestCase):
    def check(self, line: str, matching: list[ConnectionRequest], other: list[ConnectionRequest]) -> None:
        """See that *line* is about some connections, and not about others."""
        rule = line_of(line)
        for one in matching:
            self.assertTrue(rule.matches(one, own), (line, one))
        for one in other:
            self.assertFalse(rule.matches(one, own), (line, one))

    def test_replication(self) -> None:
        """Physical replication is meant by the bare word only, and the word means nothing else."""
        physical, named = request(), request(database="replication")
        self.check("host replication all all trust", [physical], [named, request(database="x")])
        self.check("host all all all trust", [named], [physical])
        self.check('host "replication" all all trust', [named], [physical])
        self.check("host /.* all all trust", [named], [physical])
        self.check("host replication,all all all trust", [physical, named], [])
        self.check("host x,replication all all trust", [physical, request(database="x")], [named])

    def test_databases(self) -> None:
        """Names, the user's own name, and regular expressions, which match at any place."""
        own_name, other = request(user="a", database="a"), request(user="a", database="b")
        self.check("host sameuser all all trust", [own_name], [other, request(user="")])
        self.check('host "sameuser" all all trust', [request(database="sameuser")], [own_name])
        self.check("host a all all trust", [own_name], [other, request(database="ab")])
        self.check(
            "host /^a all all trust", [own_name, request(database="ab")], [other, request(database="ba")]
        )
        self.check("host +a all all trust", [request(database="+a")], [own_name])

    def test_users(self) -> None:
        """Names and regular expressions; quoted words are names, case counts."""
        named_all = request(user="all")
        self.check("host replication all all trust", [request(), named_all], [])
        self.check('host replication "all" all trust', [named_all], [request()])
        self.check("host replication user,x all trust", [request(), request(user="x")], [named_all])
        self.check("host replication User all trust", [], [request()])
        self.check('host replication "+user" all trust', [request(user="+user")], [request()])
        self.check('host replication "/^u.{2,}$" all trust', [request()], [request(user="u"), named_all])

    def test_connectionTypes(self) -> None:
        """Unix sockets, TCP, and TCP with and without encryption."""
        plain, encrypted, unix = request(), request(tls=TlsInfo()), request(None)
        self.check("local replication all trust", [unix], [plain, encrypted])
        self.check("host replication all all trust", [plain, encrypted], [unix])
        self.check("hostssl replication all all trust", [encrypted], [plain, unix])
        self.check("hostnossl replication all all trust", [plain], [encrypted, unix])
        self.check("hostnogssenc replication all all trust", [plain, encrypted], [unix])
        self.check("hostgssenc replication all all trust", [], [plain, encrypted, unix])

    def test_addresses(self) -> None:
        """Networks, with masks of any form; IPv4 and IPv6 do not match each other."""
        local, other, six = request(), request("10.1.2.3"), request("::1")
        self.check("host replication all 127.0.0.1/32 trust", [local], [other, six])
        self.check("host replication all 127.9.9.9/8 trust", [local], [other, six])
        self.check("host replication all 0.0.0.0/0 trust", [local, other], [six])
        self.check("host replication all ::/0 trust", [six], [local, other])
        self.check(
            "host replication all ::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff md5", [six], [request("::2")]
        )
        self.check("host replication all 10.0.2.0 255.0.255.0 trust", [other], [request("10.1.3.3"), local])
        self.check("host replication all all trust", [local, other, six], [])

    def test_ownAddresses(self) -> None:
        """The addresses of this machine, and those in its networks."""
        self_, near, far = request("192.0.2.1"), request("192.0.2.77"), request("192.0.3.1")
        six, near_six = request("2001:db8::1"), request("2001:db8::2")
        scoped = request("2001:db8::1%eth0")  # so the system writes a link-local address
        self.check(
            "host replication all samehost trust", [self_, six, scoped], [near, near_six, far, request()]
        )
        self.check("host replication all samenet trust", [self_, six, near, near_six], [far, request()])

    def test_firstMatchDecides(self) -> None:
        """The first line that matches is found; none is none."""
        rules = loaded(load_hba, "host replication bad all reject\nhost replication all 127.0.0.1/32 md5\n")
        found = [
            rules.find(one) for one in (request(user="bad"), request(), request("::1"), request(database="x"))
        ]
        self.assertEqual([line and line.method for line in found], [Method.REJECT, Method.MD5, None, None])
        self.assertEqual([line and line.number for line in found], [1, 2, None, None])

    def test_withoutAFile(self) -> None:
        """Without a file this machine is trusted, nobody else."""
        for peer in (None, "127.0.0.1", "127.3.4.5", "::1"):
            for database in (None, "x"):
                line = THIS_MACHINE.find(request(peer, database=database))
                assert line is not None
                self.assertIs(line.method, Method.TRUST)
        for peer in ("192.0.2.1", "::2", "126.255.255.255", "128.0.0.0"):
            self.assertIsNone(THIS_MACHINE.find(request(peer)))

    def test_addressesOfThisMachine(self) -> None:
        """The kernel tells all addresses that there are, loopback among them."""
        self.assertIn(ip_interface("127.0.0.1/8"), own_interfaces())

    def test_addressesUnknown(self) -> None:
        """If the system does not tell its addresses, nobody comes in by such a rule, nor past it."""

        def refused() -> NoReturn:
            raise OSError(errno.EPERM, "Operation not permitted")

        self.patch(own_addresses, "_ask", refused)
        rules = loaded(load_hba, "host all all samenet reject\nhost all all all trust")
        error = self.assertRaises(OutOfResources, rules.find, request(database="x"))
        self.assertEqual(error.message, "error enumerating network interfaces: Operation not permitted")
        self.assertEqual(error.severity, "FATAL")


class LinesTests(SynchronousTestCase):
    def test_methodsAndOptions(self) -> None:
        """Each method that there is, and what may be added to it."""
        for text, expected in {
            "local all all trust": (Method.TRUST, None, ClientName.CN, None),
            "local all all peer map=m": (Method.PEER, None, ClientName.CN, "m"),
            "local all all ident": (Method.PEER, None, ClientName.CN, None),
            "local all all peer map=": (Method.PEER, None, ClientName.CN, None),
            "hostssl all all all cert": (Method.CERT, ClientCert.VERIFY_FULL, ClientName.CN, None),
            "hostssl all all all cert clientname=DN map=m": (
                Method.CERT,
                ClientCert.VERIFY_FULL,
                ClientName.DN,
                "m",
            ),
            "hostssl all all all trust clientcert=verify-ca": (
                Method.TRUST,
                ClientCert.VERIFY_CA,
                ClientName.CN,
                None,
            ),
            "hostssl all all all md5 clientcert=verify-full,clientname=CN": (
                Method.MD5,
                ClientCert.VERIFY_FULL,
                ClientName.CN,
                None,
            ),
            "host all all all scram-sha-256": (Method.SCRAM_SHA_256, None, ClientName.CN, None),
            "host all all all password": (Method.PASSWORD, None, ClientName.CN, None),
            "host all all all reject": (Method.REJECT, None, ClientName.CN, None),
        }.items():
            line = line_of(text)
            self.assertEqual((line.method, line.client_cert, line.client_name, line.map_name), expected, text)

    def test_place(self) -> None:
        """A line knows where it stands."""
        line = line_of("\n# x\nlocal all all trust")
        self.assertEqual((line.file.rpartition("/")[2], line.number), ("file.conf", 3))

    def test_everyProblemIsTold(self) -> None:
        """All bad lines are told, with their numbers, and no rule is taken from such a file."""
        for text, message in {
            "x": 'invalid connection type "x"',
            "local,host a b trust": "multiple values specified for connection type",
            "local": "end-of-line before database specification",
            "local all": "end-of-line before role specification",
            "host all all": "end-of-line before IP address specification",
            "host all all 1.2.3.4": "end-of-line before netmask specification",
            "host all all 1.2.3.4 ::1 md5": "IP address and mask do not match",
            "host all all 1.2.3.4/33 md5": 'invalid CIDR mask in address "1.2.3.4/33"',
            "host all all 1.2.3.4/ md5": 'invalid CIDR mask in address "1.2.3.4/"',
            "host all all 1.2.3.4/٣ md5": 'invalid CIDR mask in address "1.2.3.4/٣"',
            "host all all a,b md5": "multiple values specified for host address",
            "host all all 1.2.3.4 a,b md5": "multiple values specified for netmask",
            "host all all x/8 md5": 'specifying both host name and CIDR mask is invalid: "x/8"',
            "host all all x.org md5": 'host name "x.org" is not supported as an address',
            'host all all "all" md5': 'host name "all" is not supported as an address',
            'host all all "" md5': 'host name "" is not supported as an address',
            "local all all": "end-of-line before authentication method",
            "local all all a,b": "multiple values specified for authentication type",
            "local all all x": 'invalid authentication method "x"',
            "host all all all peer": "peer authentication is only supported on local sockets",
            "host all all all cert": "cert authentication is only supported on hostssl connections",
            "local all all trust x": "authentication option not in name=value format: x",
            "local all all trust x=": 'unrecognized authentication option name: "x"',
            "local all all trust map=x": (
                'authentication option "map" is only valid for authentication methods peer and cert'
            ),
            "local all all trust ldaptls=1": (
                'authentication option "ldaptls" is only valid for authentication methods ldap'
            ),
            "host all all all md5 clientcert=verify-ca": (
                'clientcert can only be configured for "hostssl" rows'
            ),
            "host all all all md5 clientname=DN": 'clientname can only be configured for "hostssl" rows',
            "hostssl all all all md5 clientcert=1": 'invalid value for clientcert: "1"',
            "hostssl all all all md5 clientname=dn": 'invalid value for clientname: "dn"',
            "hostssl all all all cert clientcert=verify-ca": (
                'clientcert only accepts "verify-full" when using "cert" authentication'
            ),
            "local all /( trust": 'invalid regular expression "(": parentheses () not balanced',
            "local /[ all trust": 'invalid regular expression "[": brackets [] not balanced',
            "local all +x trust": '"+x" is not supported: no roles here have members',
            "local samerole all trust": '"samerole" is not supported: no roles here have members',
            "local samegroup all trust": '"samegroup" is not supported: no roles here have members',
            **{
                f"host all all all {method}": (
                    f'invalid authentication method "{method}": not supported by this build'
                )
                for method in ("bsd", "gss", "ident", "ldap", "oauth", "pam", "radius", "sspi")
            },
        }.items():
            content = f"local all all trust\n{text}\nlocal all all\n"
            expected = [(2, message), (3, "end-of-line before authentication method")]
            self.assertEqual(problems(load_hba, content), expected, text)

    def test_noLine(self) -> None:
        """A file without any rule lets nobody in, and so is an error."""
        self.assertEqual(
            problems(load_hba, "# x\n"), [(0, 'configuration file "file.conf" contains no entries')]
        )

    def test_warnings(self) -> None:
        """Lines that cannot match are told, with what to do."""
        rules = loaded(
            load_hba, "hostssl all all all md5\nhostgssenc all all all md5\nhost all all all md5\n"
        )
        told = [(one.line, one.message) for one in rules.warnings(ssl=False)]
        gss = (2, "hostgssenc record cannot match because GSSAPI is not supported by this build")
        self.assertEqual(told, [(1, "hostssl record cannot match because SSL is disabled"), gss])
        self.assertEqual([(one.line, one.message) for one in rules.warnings(ssl=True)], [gss])

    @given(st.lists(st.sampled_from(WORDS)).map(" ".join) | st.text())
    def test_anyText(self, content: str) -> None:
        """Whatever is in a file, it is rules or the one error."""
        content = content.encode("utf-8", "replace").decode()
        if not problems(load_hba, content):
            self.assertIsInstance(loaded(load_hba, content), HbaRules)
