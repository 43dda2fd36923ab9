"""
The page in a real browser, with a real relay behind it: ``tox -e browser``.

A primary under load, a relay, two standbys and a pg_receivewal.  Each test leaves them as it found them.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import ExitStack, closing
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg2
import psycopg2.extras
import pytest
from browser import Browser, programs
from relay_helpers import make_primary, make_relay, make_standby, wait_for_streaming
from twistd_helpers import make_wal

from walsender.lsn import LSN
from walsender.status.words import age, seconds, size
from walsender.testing.installation import PostgresInstallation
from walsender.testing.postgres import PgBench, PgReceiveWal, free_port
from walsender.testing.processes import WalsenderProcess, workspace
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTILE: Final = "<img src=x onerror=alert(1)>\"'&amp;</td>"
NAMES: Final = ["archive", "standby-berlin", "standby-oslo"]
PICTURES: Final = os.environ.get("WALSENDER_PICTURES")
MOST_BYTES: Final = 100_000


class Scene:
    """
    Everything that runs.

    :ivar url: of the page.
    """

    def __init__(self, stack: ExitStack, space: Path) -> None:
        installation = PostgresInstallation.embedded(18)
        self.primary = make_primary(stack, installation, space)
        PgBench.initialise(self.primary)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/"
        self.relay = make_relay(
            stack,
            space,
            self.primary.conninfo(),
            *("--http", f"tcp:{port}:interface=127.0.0.1"),
            *("--wal-keep-size", "64MB", "--max-slot-wal-keep-size", "4GB"),
        )
        wait_for_streaming(self.relay, self.primary)
        backup = self.primary.base_backup(space / "backup")
        self._archive = (installation, space / "archive", self.relay.conninfo(application_name="archive"))
        for slot in ("archive", "berlin"):
            with PgReceiveWal(*self._archive, "--slot", slot, "--create-slot") as made:
                made.wait()
        self.berlin, self.oslo = (
            make_standby(
                stack,
                backup,
                space,
                self.relay.conninfo(application_name=name),
                self.primary,
                name,
            )
            for name in ("standby-berlin", "standby-oslo")
        )
        self.archive = self.receive()
        stack.callback(self.close)
        stack.enter_context(PgBench(self.primary, "--client=2", "--rate=60"))

    def relay_end(self) -> str:
        """Return an LSN up to which the relay has WAL."""
        return str(self.oslo.replayed_lsn())

    def close(self) -> None:
        """End the pg_receivewal that there is by then."""
        self.archive.stop()

    def receive(self) -> PgReceiveWal:
        """Return a pg_receivewal that follows the relay."""
        return PgReceiveWal(*self._archive, "--slot", "archive", "--synchronous")


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """What is looked at."""
    programs()  # without them nothing need be started
    with workspace() as space, ExitStack() as stack:
        yield Scene(stack, space)


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A window, of which nobody has complained at the end."""
    with Browser() as browser:
        yield browser
        browser.read_logs()
        assert browser.complaints == []


def open_page(browser: Browser, scene: Scene) -> None:
    """Open the page, and wait until it lives and all standbys are well."""
    browser.open(scene.url)
    browser.wait(lambda: browser.text("#live").strip() == "live", "the page to live")
    browser.wait(
        lambda: [row["kind"] for row in browser.rows("standby-rows")] == ["ok"] * 3, "three standbys"
    )


def test_threeStandbysMove(scene: Scene, browser: Browser) -> None:
    """Three standbys are shown, in the picture and in the table, and all their positions move."""
    open_page(browser, scene)
    assert [row["application_name"] for row in browser.rows("standby-rows")] == NAMES
    assert [row["application_name"] for row in browser.rows("fan")] == NAMES
    assert browser.text('[data-fact="upstream_address"]') == f"127.0.0.1:{scene.primary.port}"
    assert browser.text('[data-fact="standby_count"]') == "3 of 100"

    def positions() -> list[LSN]:
        found = [row[name] for row in browser.rows("standby-rows") for name in ("sent_lsn", "write_lsn")]
        return [LSN.parse(text) for text in (*found, browser.text('[data-fact="flush_lsn"]'))]

    before = positions()
    browser.wait(lambda: all(a < b for a, b in zip(before, positions(), strict=True)), "positions to move")
    browser.wait(lambda: len(browser.rows("legend")) == 4, "a line of each, and one of the relay")
    lines = "return document.querySelectorAll('#chart .line').length"
    browser.wait(lambda: browser.run(lines) == 4, "lines in the chart")
    assert {row["slot_name"]: row["kind"] for row in browser.rows("slot-rows")} == {
        "archive": "ok",
        "berlin": "warn",
    }
    assert [row["timeline"] for row in browser.rows("timeline-rows")] == ["1"]
    assert browser.run("return document.querySelectorAll('.bar .held').length") == 1


def test_oneStops(scene: Scene, browser: Browser) -> None:
    """Who stops turns red, with another mark, in words, in the title and for who listens; and back."""
    open_page(browser, scene)
    scene.archive.stop()
    browser.wait(lambda: browser.row("archive")["kind"] == "bad", "the archive to be red")
    row = browser.row("archive")
    assert re.fullmatch(r"disconnected \d+ s ago", row["condition"])
    assert (row["mark"], browser.row("archive", "fan")["kind"]) == ("#mark-bad", "bad")
    red, green, blue = browser.run(
        "const cell = document.querySelector('#standby-rows .bad .condition');"
        "return getComputedStyle(cell).color.match(/\\d+/g)"
    )
    assert int(red) > 2 * max(int(green), int(blue))
    assert browser.run("return document.title") == "(1) walsender"
    assert browser.text("#news").startswith("archive: disconnected")
    assert browser.text('[data-fact="standby_count"]') == "2 of 100, 1 stopped or behind"
    assert [row["kind"] for row in browser.rows("standby-rows")] == ["bad", "ok", "ok"]
    scene.archive = scene.receive()
    browser.wait(lambda: browser.row("archive")["kind"] == "ok", "the archive to be back")
    browser.wait(lambda: browser.text("#news") == "archive: streaming", "the news")
    assert browser.run("return document.title") == "walsender"


def test_oneFallsBehind(scene: Scene, browser: Browser) -> None:
    """Who does not replay is red when it is further behind than is permitted; its distance is drawn."""
    browser.open(f"{scene.url}?lag=64kB")
    scene.oslo.sql("SELECT pg_wal_replay_pause()")
    try:
        browser.wait(lambda: browser.row("standby-oslo")["kind"] == "bad", "the standby to be behind")
        assert re.fullmatch(r"[\d.]+ [kM]B behind", browser.row("standby-oslo")["condition"])
        assert browser.run("return document.querySelectorAll('#chart .limit').length") == 1
    finally:
        scene.oslo.sql("SELECT pg_wal_replay_resume()")
    browser.wait(lambda: browser.row("standby-oslo")["kind"] == "ok", "the standby to be level")


def test_chart(scene: Scene, browser: Browser) -> None:
    """The chart is of bytes or of time; the legend says what was where the pointer is."""
    open_page(browser, scene)
    first_label = "return document.querySelectorAll('#chart text.from')[1]?.textContent ?? ''"
    browser.wait(lambda: browser.run(first_label).endswith("B"), "bytes")
    browser.run("document.querySelector('[value=seconds]').click()")
    browser.wait(lambda: browser.run(first_label).endswith("s"), "seconds")
    browser.wait(
        lambda: sorted(row["name"] for row in browser.rows("legend")) == NAMES, "no line of the relay"
    )
    browser.run("document.querySelector('[value=bytes]').click()")
    browser.wait(lambda: browser.run("return document.querySelector('#chart .line')") is not None, "a line")
    assert browser.run("return document.querySelector('#chart .cursor')") is None
    move = (
        "const box = document.getElementById('chart').getBoundingClientRect();"
        "document.getElementById('chart').dispatchEvent(new PointerEvent('pointermove',"
        " {clientX: box.left + arguments[0] * box.width, clientY: box.top + 50}))"
    )
    browser.run(move, 0.2)
    assert browser.run("return document.querySelector('#chart .cursor')") is not None
    assert [row["value"] for row in browser.rows("legend")] == [
        "\N{EN DASH}"
    ] * 4  # before the page was there


def test_manyComeAndGo(scene: Scene, browser: Browser) -> None:
    """Of those who have left no more than fifty are remembered, the last."""
    open_page(browser, scene)
    with ExitStack() as stack:
        for number in range(60):
            client = RawClient(scene.relay.host, scene.relay.port, application_name=f"guest {number:02}")
            stack.enter_context(client.ready())
        browser.wait(lambda: len(browser.rows("standby-rows")) == 63, "all to be shown")
        assert len(browser.rows("fan")) == 10
        assert browser.text("#others") == "and 53 more"
    browser.wait(lambda: len(browser.rows("standby-rows")) == 53, "some to be forgotten")
    assert {row["application_name"] for row in browser.rows("standby-rows")} > set(NAMES)


def test_hostileName(scene: Scene, browser: Browser) -> None:
    """A name that is markup is shown as it is, before the script has run and after, and nothing is run."""
    upstream = scene.relay.conninfo(application_name=HOSTILE)
    factory = psycopg2.extras.PhysicalReplicationConnection
    with closing(psycopg2.connect(upstream, connection_factory=factory)) as connection:
        connection.cursor().start_replication(start_lsn=scene.relay_end())
        open_page_with = [HOSTILE, *NAMES]
        browser.open(scene.url)
        browser.wait(lambda: len(browser.rows("standby-rows")) == 4, "four standbys")
        assert [row["application_name"] for row in browser.rows("standby-rows")] == open_page_with
        assert browser.run("return document.images.length") == 0
        browser.wait(lambda: HOSTILE in [row["name"] for row in browser.rows("legend")], "its line")
        browser.forbid_scripts(forbidden=True)
        browser.open(scene.url)
        assert HOSTILE in browser.text("#standby-rows")
        browser.forbid_scripts(forbidden=False)


def test_withoutScripts(scene: Scene, browser: Browser) -> None:
    """Without JavaScript the same is there, and loaded again."""
    browser.forbid_scripts(forbidden=True)
    browser.open(scene.url)
    assert [row["application_name"] for row in browser.rows("standby-rows")] == NAMES
    assert [row["application_name"] for row in browser.rows("fan")] == NAMES
    assert not browser.run("return document.querySelector('#lag').checkVisibility()")
    before = browser.text('[data-fact="flush_lsn"]')
    browser.wait(lambda: browser.text('[data-fact="flush_lsn"]') != before, "the page to be loaded again")


def test_asksNobodyElse(scene: Scene, browser: Browser) -> None:
    """No request leaves for another host, whatever is on the page."""
    open_page(browser, scene)
    browser.read_logs()
    asked = {url for url in browser.requests if not url.startswith("data:")}
    assert asked == {scene.url, f"{scene.url}events"}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_readable(scene: Scene, browser: Browser, *, dark: bool) -> None:
    """Text differs from what is behind it as WCAG's level AA wants, in either scheme, in every state."""
    open_page(browser, scene)
    browser.look(dark=dark)
    for kind in ("ok", "warn", "bad"):
        browser.run(
            "const [row, item] = [...document.querySelectorAll('#standby-rows tr, #fan li')];"
            "row.className = item.className = arguments[0]; document.body.classList.toggle('cut-off', true)",
            kind,
        )
        found = browser.contrasts()
        assert len(found) > 60
        assert [(text, ratio) for text, ratio in found if ratio < 4.5] == []
    ground = browser.run("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(ground) < 64) if dark else (min(ground) > 192)


def test_phone(scene: Scene, browser: Browser) -> None:
    """With 360 pixels nothing is wider than the window, whatever names are in it."""
    upstream = scene.relay.conninfo(application_name="W" * 60)
    factory = psycopg2.extras.PhysicalReplicationConnection
    with closing(psycopg2.connect(upstream, connection_factory=factory)) as connection:
        connection.cursor().start_replication(start_lsn=scene.relay_end())
        browser.open(scene.url, width=360, height=740)
        browser.wait(lambda: len(browser.rows("legend")) == 5, "all of them")
        for width in (360, 820, 821, 1280):
            browser.look(width=width)
            assert browser.run("return document.documentElement.scrollWidth") == width
            overflowing = browser.run(
                "return [...document.querySelectorAll('.node, #fan li, section, header, footer')]"
                ".filter((node) => node.scrollWidth > node.clientWidth + 1).map((node) => node.outerHTML)"
            )
            assert overflowing == []


def test_structure(scene: Scene, browser: Browser) -> None:
    """There are landmarks and headings, tables have headers, and the tree for screen readers has the rows."""
    open_page(browser, scene)
    tree = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    found: dict[str, list[str]] = {}
    for node in tree:
        if not node["ignored"]:
            found.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    assert {"banner", "main", "contentinfo", "navigation", "status"} <= set(found)
    assert found["region"] == [
        "Topology",
        "Recent lag",
        "Standbys",
        "Replication slots",
        "Timelines",
    ]
    assert len(found["table"]) == 3
    assert found["rowheader"][:3] == NAMES
    assert "Replayed" in found["columnheader"]


def test_serverComesBack(browser: Browser) -> None:
    """When the server ends the page says so and from when it is; when it is back, it goes on."""
    with workspace() as space:
        make_wal(space / "wal")
        port = free_port()
        options = ("--http", f"tcp:{port}:interface=127.0.0.1")
        with WalsenderProcess(space / "wal", *options, log_file=space / "log"):
            browser.open(f"http://127.0.0.1:{port}/")
            browser.wait(lambda: browser.text("#live").strip() == "live", "the page to live")
            assert browser.text('[data-fact="role"]') == "directory"
        browser.wait(lambda: "no connection" in browser.text("#live"), "the page to notice")
        assert "stale" in browser.run("return document.body.className")
        with WalsenderProcess(space / "wal", *options, log_file=space / "log"):
            browser.wait(lambda: browser.text("#live").strip() == "live", "the page to live again")
        browser.read_logs()
        assert all("Failed to load resource: net::ERR_" in text for text in browser.complaints)
        browser.complaints.clear()


def test_upstreamAway(browser: Browser) -> None:
    """Of a relay that receives nothing the page says since when and why, live, before there is any WAL."""
    with workspace() as space:
        (space / "wal").mkdir()
        port, nobody = free_port(), free_port()
        options = (
            *("--http", f"tcp:{port}:interface=127.0.0.1"),
            *("--primary-conninfo", f"host=127.0.0.1 port={nobody}"),
        )
        with WalsenderProcess(space / "wal", *options, log_file=space / "log"):
            browser.open(f"http://127.0.0.1:{port}/")
            browser.wait(lambda: browser.text("#live").strip().startswith("starting"), "the page to live")
            refused = f'connection to server at "127.0.0.1", port {nobody} failed: Connection refused'
            browser.wait(lambda: browser.text('[data-fact="upstream_error"]') == refused, "the reason")
            state = browser.text('[data-fact="upstream_state"]')
            assert re.fullmatch(r"nothing received for \d+ s", state)
            browser.wait(lambda: browser.text('[data-fact="upstream_state"]') != state, "time to pass")
            assert "cut-off" in browser.run("return document.body.className")
            browser.driver.get("about:blank")  # or it would complain of the server's end


def test_words(browser: Browser) -> None:
    """The script words numbers as the server does."""
    content = files("walsender.status").joinpath("words.js").read_text()
    numbers = [
        0,
        1,
        59,
        60,
        61,
        99,
        100,
        999,
        1000,
        1023,
        1024,
        99_999,
        3_599,
        3600,
        86_400,
        10**6,
        10**12,
        3 << 60,
    ]
    parts = [0.0001, 0.00999, 0.5, 0.9996, 9.994, 9.996, 12.34, 99.94, 99.96]
    for name, function, values in (
        ("size", size, numbers),
        ("seconds", seconds, [*numbers, *parts]),
        ("age", age, numbers),
    ):
        expected = [function(value) for value in values]
        assert browser.run(f"{content}\nreturn {json.dumps(values)}.map({name})") == expected


def test_pictures(scene: Scene, browser: Browser, tmp_path: Path) -> None:
    """The pictures of the documentation are made, and are small."""
    directory = Path(PICTURES) if PICTURES else tmp_path
    directory.mkdir(exist_ok=True)
    open_page(browser, scene)
    _make_history(scene, browser)
    scene.archive.stop()
    try:
        browser.wait(lambda: browser.row("archive")["kind"] == "bad", "the archive to be red")
        for name, width, height, dark in (
            ("page-light", 1280, None, False),
            ("page-dark", 1280, None, True),
            ("page-phone", 360, 780, False),
        ):
            scale = 1 if width > 600 else 2
            browser.look(width=width, dark=dark, scale=scale)
            whole = browser.run("return Math.ceil(document.body.getBoundingClientRect().height)")
            browser.look(width=width, height=height or whole, dark=dark, scale=scale)
            picture = directory / f"{name}.png"
            browser.save_picture(picture)
            assert picture.stat().st_size < MOST_BYTES
    finally:
        scene.archive = scene.receive()


def _make_history(scene: Scene, browser: Browser) -> None:
    """Let there be something in the chart: standbys that do not replay for a while."""
    points = "return document.querySelector('#chart .line.hue1')?.getAttribute('d').split('L').length ?? 0"

    def wait(count: int) -> None:
        browser.wait(lambda: browser.run(points) > count, "points in the chart")

    wait(6)
    scene.oslo.sql("SELECT pg_wal_replay_pause()")
    wait(16)
    scene.berlin.sql("SELECT pg_wal_replay_pause()")
    wait(24)
    scene.oslo.sql("SELECT pg_wal_replay_resume()")
    wait(32)
    scene.berlin.sql("SELECT pg_wal_replay_resume()")
    wait(44)
