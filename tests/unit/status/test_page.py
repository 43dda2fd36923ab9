"""The page as it comes from the server: what it says without JavaScript, and what it permits."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

from site_helpers import SiteTestCase
from status_helpers import RECEIVING
from twisted.trial.unittest import SynchronousTestCase

from walsender.lsn import LSN
from walsender.sender.slot_table import WalSenderEntry
from walsender.status.document import document
from walsender.status.page import MOST_ROWS, page_answer
from walsender.status.picture import look
from walsender.status.words import age, moment, seconds, size
from walsender.upstream import NotReceiving

HOSTILE = "</span></td><script>alert(1)</script><img src=x onerror=\"alert('2')\">&amp;"


class Reader(HTMLParser):
    """
    Reads a page as a browser does that runs no scripts.

    :ivar tags: names and attributes of all elements.
    :ivar rows: the texts of the cells of each row, by the id of what the rows are in.
    """

    def __init__(self, text: str) -> None:
        HTMLParser.__init__(self)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: dict[str, list[list[str]]] = {}
        self.classes: dict[str, list[str]] = {}
        self.facts: dict[str, str] = {}
        self._list = ""
        self._field = ""
        self._in_pattern = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if attributes.get("id"):
            self._list = attributes["id"] or ""
        self._in_pattern = self._in_pattern or tag == "template"
        if tag in {"tr", "li"} and not self._in_pattern:
            self.rows.setdefault(self._list, []).append([])
            self.classes.setdefault(self._list, []).append(attributes.get("class") or "")
        self._field = attributes.get("data-fact") or ""
        if tag in {"td", "th"} and not self._in_pattern:
            self.rows[self._list][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        """Note the end of a pattern, or of a table."""
        self._field = ""
        if tag == "table":
            self._list = ""
        if tag == "template":
            self._in_pattern = False

    def handle_data(self, data: str) -> None:
        """Note text."""
        if self._field:
            self.facts[self._field] = data
        if not self._in_pattern and self.rows.get(self._list) and self.rows[self._list][-1]:
            self.rows[self._list][-1][-1] += data.strip()


class PageTests(SiteTestCase):
    """``/``."""

    def read(self, path: str = "/") -> Reader:
        """Return what is on the page."""
        status, _, body = self.client.ask(path)
        self.assertEqual(200, status)
        return Reader(body.decode())

    def upstream(self) -> tuple[str, str, str | None, str | None]:
        """Return the upstream's state in words, class and mark, and the class of all."""
        reader = self.read()
        (body,) = (attributes for tag, attributes in reader.tags if tag == "body")
        place = reader.tags.index(("div", {"class": "node", "id": "upstream"}))
        after = reader.tags[place:]
        (kind, *_) = (a["class"] or "" for _, a in after if "condition" in (a.get("class") or ""))
        (mark, *_) = (a["href"] for tag, a in after if tag == "use")
        return reader.facts["upstream_state"], kind.removeprefix("condition "), mark, body.get("class")

    def test_headers(self) -> None:
        """Nobody keeps the page, frames it or guesses what it is."""
        _, headers, body = self.client.ask("/")
        self.assertEqual("text/html; charset=utf-8", headers["content-type"])
        self.assertEqual("no-store", headers["cache-control"])
        self.assertEqual("nosniff", headers["x-content-type-options"])
        self.assertEqual("deny", headers["x-frame-options"])
        self.assertEqual(len(body), int(headers["content-length"]))

    def test_policy(self) -> None:
        """Nothing but the page's own script and style is run, by their hashes; everything else is refused."""
        self.client.ask("/")
        answer = page_answer(document(look(self.watched.view, 1000.0), MOST_ROWS), 0)
        policy = dict(answer.headers)[b"Content-Security-Policy"].decode()
        rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
        for name, pattern in (
            ("script", rb"<script[^>]*>(.*?)</script>"),
            ("style", rb"<style>(.*?)</style>"),
        ):
            (content,) = re.findall(pattern, answer.body, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
            self.assertEqual(f"'sha256-{digest}'", rules.pop(f"{name}-src"))
        none = dict.fromkeys(("default-src", "base-uri", "form-action", "frame-ancestors"), "'none'")
        self.assertEqual(none | {"img-src": "data:", "connect-src": "'self'"}, rules)

    def test_selfContained(self) -> None:
        """It asks for nothing but the events, and has no style and no script in attributes."""
        reader = self.read()
        for tag, attributes in reader.tags:
            self.assertFalse({name for name in attributes if name == "style" or name.startswith("on")}, tag)
            self.assertNotIn("src", attributes)
            if tag == "link":
                self.assertTrue(str(attributes["href"]).startswith("data:"))
        for name in ("page.css", "page.js", "chart.js", "words.js"):
            content = files("walsender.status").joinpath(name).read_text()
            self.assertNotIn("url(", content)
            self.assertNotIn("innerHTML", content)
            self.assertNotIn("</", content)
            self.assertEqual(
                set(), set(re.findall(r"https?://[^\"]*", content)) - {"http://www.w3.org/2000/svg"}
            )

    def test_hostileNames(self) -> None:
        """What clients call themselves is text, whatever it is."""
        before = [tag for tag, _ in self.read().tags]
        self.watched.standby.application_name = self.watched.standby.user = HOSTILE
        reader = self.read()
        self.assertEqual(before, [tag for tag, _ in reader.tags])
        self.assertEqual(2, sum(cell == HOSTILE for cell in reader.rows["standby-rows"][0]))

    def test_completeWithoutScripts(self) -> None:
        """Upstream, standbys, slots and gaps are in the page as it comes, and it comes again by itself."""
        self.watched.upstream, self.watched.receiver = "host=primary password=geheim", RECEIVING
        self.assertNotIn(b"geheim", self.client.ask("/")[2])
        reader = self.read()
        self.assertIn(("meta", {"http-equiv": "refresh", "content": "5"}), reader.tags)
        self.assertEqual(
            ("relay", "primary:5432", "0/500000", "256 B", "7300000000000000001", "2 of 10"),
            tuple(
                reader.facts[name]
                for name in (
                    *("role", "upstream_address", "flush_lsn", "upstream_lag"),
                    *("system_identifier", "standby_count"),
                )
            ),
        )
        client, standby = reader.rows["standby-rows"]
        self.assertEqual(['st"1', "streaming", "10.0.0.1:4000", "repl"], standby[:4])
        self.assertEqual(["0/480000", "0/470000", "0/460000", "0/450000", "704 kB", "2.50 s"], standby[4:10])
        self.assertEqual(["pg_receivewal", "startup", "[local]"], client[:3])
        self.assertEqual(["bad", "ok"], reader.classes["standby-rows"])
        self.assertEqual(["bad", "warn", "ok"], reader.classes["slot-rows"])
        self.assertEqual(
            ["used", "active", "extended", "0/300000", "2.00 MB"], reader.rows["slot-rows"][2][:5]
        )
        ((timeline, *_, held, gaps),) = reader.rows["timeline-rows"]
        self.assertEqual(("1", "4.00 MB", "0/300000 to 0/400000"), (timeline, held, gaps))

    def test_manyGaps(self) -> None:
        """Of many gaps the newest are named."""
        about = document(look(self.watched.view, 1000.0))
        (timeline,) = about["timelines"]
        timeline["gaps"] = [{"start_lsn": f"0/{n}00000", "end_lsn": f"0/{n}80000"} for n in range(1, 6)]
        ((*_, gaps),) = Reader(page_answer(about, 0).body.decode()).rows["timeline-rows"]
        expected = "2 more, 0/300000 to 0/380000, 0/400000 to 0/480000, 0/500000 to 0/580000"
        self.assertEqual(expected, gaps)

    def test_lag(self) -> None:
        """Who is further behind than is permitted is marked, also in words; what is no size is refused."""
        for lag, expected in (("704kB", ("ok", "streaming")), ("720895", ("bad", "704 kB behind"))):
            reader = self.read(f"/?lag={lag}")
            found = (reader.classes["standby-rows"][1], reader.rows["standby-rows"][1][1])
            self.assertEqual(expected, found)
        self.assertEqual(400, self.status("/?lag=x"))

    def test_marks(self) -> None:
        """A state is a shape too, not only a colour."""
        body = self.client.ask("/?lag=1kB")[2].decode()
        self.assertEqual(4, body.count('<tr role="row" class="bad"'))
        self.assertEqual(6, body.count('<use href="#mark-bad">'))

    def test_catchup(self) -> None:
        """Who is catching up is marked as something between."""
        self.watched.standby.state = "catchup"
        self.assertEqual("warn", self.read().classes["standby-rows"][1])

    def test_otherServers(self) -> None:
        """A server of a directory, a relay that is cut off, and one without WAL say so."""
        self.assertEqual(("a directory of WAL", "ok", "#mark-ok", None), self.upstream())
        self.watched.upstream = "host=primary"
        self.watched.outage = NotReceiving(-130.0, "<b>refused</b>")
        expected = ("nothing received for 2 min 10 s", "bad", "#mark-bad", "cut-off")
        self.assertEqual(expected, self.upstream())
        self.assertEqual("<b>refused</b>", self.read().facts["upstream_error"])
        self.watched.receiver = RECEIVING
        self.assertEqual(("streaming", "ok", "#mark-ok", None), self.upstream())
        self.watched.receiver = None
        self.watched.source.ready = False
        reader = self.read()
        self.assertIn("no WAL to serve", reader.facts["live"])
        self.assertNotIn("standby-rows", reader.rows)

    def test_head(self) -> None:
        """HEAD has no body."""
        status, headers, body = self.client.ask("/", "HEAD")
        self.assertEqual((200, b""), (status, body))
        self.assertIn("content-security-policy", headers)

    def test_bounded(self) -> None:
        """Of very many standbys those are shown that are worst off."""
        self.watched.table.limit = 1000
        for number in range(MOST_ROWS):
            entry = WalSenderEntry(100 + number, "10.0.0.2", 1, 900.0, "repl", f"s{number}", "streaming")
            entry.sent_lsn = entry.replay_lsn = LSN(0x460000 + number)
            self.watched.table.reserve(entry)
        found: dict[str, Any] = document(look(self.watched.view, 1000.0), MOST_ROWS)
        self.assertEqual((MOST_ROWS + 2, MOST_ROWS), (found["standby_count"], len(found["standbys"])))
        names = [standby["application_name"] for standby in found["standbys"]]
        self.assertEqual(["pg_receivewal", 'st"1', "s0"], names[:3])
        self.assertNotIn(f"s{MOST_ROWS - 1}", names)
        self.assertEqual(
            ["used"], [slot["slot_name"] for slot in document(look(self.watched.view, 0), 1)["slots"]]
        )
        (timeline,) = document(look(self.watched.view, 0), 1)["timelines"]
        self.assertEqual(["0/400000"], [one["start_lsn"] for one in timeline["ranges"]])


class WordsTests(SynchronousTestCase):
    """Numbers as people read them."""

    def test_size(self) -> None:
        """Three digits and PostgreSQL's units."""
        for count, expected in (
            (None, "\N{EN DASH}"),
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.98 kB"),
            (1 << 20, "1.00 MB"),
            (12_900_000, "12.3 MB"),
            (999 << 20, "999 MB"),
            (1 << 60, "1024 PB"),
        ):
            self.assertEqual(expected, size(count))

    def test_seconds(self) -> None:
        """From parts of milliseconds to days."""
        for value, expected in (
            (None, "\N{EN DASH}"),
            (0.00042, "0.42 ms"),
            (0.25, "250 ms"),
            (12.34, "12.3 s"),
            (130, "2 min 10 s"),
            (7300, "2 h 1 min"),
            (200_000, "2 d 7 h"),
        ):
            self.assertEqual(expected, seconds(value))

    def test_age(self) -> None:
        """Whole seconds, never negative."""
        self.assertEqual(["0 s", "59 s", "1 min 0 s"], [age(-5), age(59.9), age(60)])

    def test_moment(self) -> None:
        """The time of day, and of which zone."""
        self.assertEqual("00:16:40 UTC", moment(1000))
