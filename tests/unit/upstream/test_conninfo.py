"""What libpq is given in place of the user's connection string."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from libpq_helpers import WatchingReactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from walsender.errors import ConfigurationError
from walsender.upstream import UpstreamError
from walsender.upstream.conninfo import (
    Target,
    connect_timeout,
    conninfo_for,
    effective_options,
    parse_conninfo,
    resolved,
    targets_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


def bare_environment(**more: str) -> mock._patch_dict:
    """Replace libpq's variables by *more*."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return mock.patch.dict(os.environ, {**kept, **more}, clear=True)


class ParseTests(SynchronousTestCase):
    """Connection strings as users write them."""

    def test_bothForms(self) -> None:
        """Keywords and URIs say the same; nothing is added."""
        expected = {"host": "a,b", "port": "1,2", "user": "u", "password": "p w", "connect_timeout": "3"}
        for text in (
            "host=a,b port=1,2 user=u password='p w' connect_timeout=3",
            "postgresql://u:p%20w@a:1,b:2?connect_timeout=3",
        ):
            self.assertEqual(parse_conninfo(text), expected)

    def test_invalid(self) -> None:
        """What is wrong is said in one line."""
        error = self.assertRaises(ConfigurationError, parse_conninfo, "host=a hots=b")
        self.assertEqual(str(error), 'invalid connection string: invalid connection option "hots"')

    def test_noSecretInTheError(self) -> None:
        """No piece of a string that may hold a secret is repeated."""
        for text in ("host=a password=top secret", "host=a sslpassword=x top=1", "postgresql://u:top@[::1"):
            error = self.assertRaises(ConfigurationError, parse_conninfo, text)
            self.assertEqual(str(error), "invalid connection string")

    def test_noText(self) -> None:
        """What no text has is refused like anything else that cannot be parsed."""
        self.assertRaises(ConfigurationError, parse_conninfo, "host=\udcff")


class EffectiveOptionsTests(SynchronousTestCase):
    """What libpq adds from elsewhere, as libpq itself reports it."""

    def test_environment(self) -> None:
        """A variable counts where the string says nothing."""
        with bare_environment(PGHOST="h", PGPORT="7", PGCONNECT_TIMEOUT="9"):
            options = effective_options({"port": "8"})
        self.assertEqual([options[name] for name in ("host", "port", "connect_timeout")], ["h", "8", "9"])

    def test_serviceFile(self) -> None:
        """Hosts may come from a service file."""
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory, "services")
            file.write_text("[upstream]\nhost=a,b\nport=6\n")
            with bare_environment(PGSERVICEFILE=str(file)):
                options = effective_options({"service": "upstream"})
        self.assertEqual((options["host"], options["port"]), ("a,b", "6"))

    def test_unknownService(self) -> None:
        """A service that does not exist is left for libpq to complain about."""
        with bare_environment():
            self.assertEqual(effective_options({"service": "no such"}), {})

    def test_connectTimeout(self) -> None:
        """The user's timeout wins, 0 and less are none, and what is no number is an error."""
        self.assertEqual(connect_timeout({}, 60), 60)
        self.assertEqual(
            [connect_timeout({"connect_timeout": text}, 60) for text in ("5", "0", "-1")], [5, 0, 0]
        )
        self.assertRaises(UpstreamError, connect_timeout, {"connect_timeout": "soon"}, 60)


class TargetsTests(SynchronousTestCase):
    """The lists of hosts, addresses and ports."""

    def test_lists(self) -> None:
        """One port is for all hosts, more are one for each, and an empty list is libpq's default."""
        for options, expected in [
            ({"host": "a,b", "port": "1"}, [("a", "", "1"), ("b", "", "1")]),
            ({"host": "a,b", "port": "1,2"}, [("a", "", "1"), ("b", "", "2")]),
            ({"host": "a,b", "hostaddr": "1.1.1.1,", "port": "1"}, [("a", "1.1.1.1", "1"), ("b", "", "1")]),
            ({"hostaddr": "1.1.1.1,::1"}, [("", "1.1.1.1", ""), ("", "::1", "")]),
            ({}, [("", "", "")]),
        ]:
            self.assertEqual(targets_of(options), [Target(*one) for one in expected], options)

    def test_listsThatDoNotFit(self) -> None:
        """Lists of different lengths are libpq's to complain about."""
        self.assertEqual(targets_of({"host": "a,b,c", "port": "1,2"}), [])
        self.assertEqual(targets_of({"host": "a,b", "hostaddr": "1.1.1.1"}), [])

    def test_random(self) -> None:
        """Balancing the load is done here, once, and libpq is told not to do it again."""
        options = {"host": ",".join(map(str, range(50))), "load_balance_hosts": "random"}
        shuffled = targets_of(options)
        plain = targets_of({"host": options["host"]})
        self.assertEqual(sorted(shuffled, key=str), sorted(plain, key=str))
        self.assertNotEqual(shuffled, plain)
        self.assertIn(b"load_balance_hosts=disable", conninfo_for(options, shuffled))

    def test_names(self) -> None:
        """Directories, addresses, defaults and names whose address is given need no looking up."""
        for host in ("/tmp", "@abstract", "127.0.0.1", "::1", ""):
            self.assertFalse(Target(host, "", "1").is_name, host)
        self.assertFalse(Target("name", "127.0.0.1", "1").is_name)
        self.assertTrue(Target("name", "", "1").is_name)


class ResolvedTests(SynchronousTestCase):
    """Looking names up."""

    def test_severalAddresses(self) -> None:
        """A name becomes all its addresses, at its place in the list, and keeps standing beside them."""
        reactor = WatchingReactor()
        reactor.names = {"two": ["192.0.2.1", "2001:db8::1"]}
        targets = [Target("/tmp", "", "1"), Target("two", "", "2"), Target("two", "", "3")]
        found = self.successResultOf(Deferred.fromCoroutine(resolved(reactor, targets, 0)))
        expected = [
            targets[0],
            Target("two", "192.0.2.1", "2"),
            Target("two", "2001:db8::1", "2"),
            Target("two", "192.0.2.1", "3"),
            Target("two", "2001:db8::1", "3"),
        ]
        self.assertEqual(found, (expected, []))

    def test_unknownName(self) -> None:
        """A name that does not exist is left out, and named."""
        reactor = WatchingReactor()
        reactor.names = {"known": ["192.0.2.1"]}
        targets = [Target("unknown", "", "1"), Target("known", "", "1")]
        found = self.successResultOf(Deferred.fromCoroutine(resolved(reactor, targets, 0)))
        failure = 'could not translate host name "unknown" to an address'
        self.assertEqual(found, ([Target("known", "192.0.2.1", "1")], [failure]))

    def test_timeout(self) -> None:
        """A name that nobody answers for holds the others up for the time given, and leaves no timer."""
        reactor = WatchingReactor()
        reactor.names = {"known": ["192.0.2.1"]}
        reactor.unanswered = {"silent"}
        targets = [Target("silent", "", "1"), Target("known", "", "1")]
        answer = Deferred.fromCoroutine(resolved(reactor, targets, 5))
        reactor.advance(4.9)
        self.assertNoResult(answer)
        reactor.advance(0.2)
        self.assertEqual(len(self.successResultOf(answer)[0]), 1)
        self.assertEqual(reactor.getDelayedCalls(), [])


class ConninfoForTests(SynchronousTestCase):
    """The string that libpq gets."""

    def parsed(self, parameters: Mapping[str, str], *targets: Target) -> dict[str, str]:
        """Return what libpq is given, taken apart."""
        return parse_conninfo(conninfo_for(parameters, targets).decode())

    def test_ours(self) -> None:
        """Replication and database are ours, the name is ours unless the user has one."""
        said = self.parsed({"replication": "database", "dbname": "x", "user": "u"})
        expected = {"replication": "true", "dbname": "replication", "user": "u"}
        self.assertEqual(said, {**expected, "fallback_application_name": "walsender"})
        said = self.parsed({"application_name": "mine", "fallback_application_name": "other"})
        self.assertEqual((said["application_name"], said["fallback_application_name"]), ("mine", "other"))

    def test_addressesBesideNames(self) -> None:
        """Names stay beside their addresses, for certificates and password files."""
        said = self.parsed({"host": "a"}, Target("a", "1.1.1.1", "1"), Target("/tmp", "", "2"))
        self.assertEqual((said["host"], said["hostaddr"], said["port"]), ("a,/tmp", "1.1.1.1,", "1,2"))

    @given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
    def test_anyValue(self, value: str) -> None:
        """Whatever a password holds, libpq gets that."""
        self.assertEqual(self.parsed({"password": value})["password"], value)
