"""The alerts and the dashboard in etc/: every series that they ask for is one that the program tells."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from prometheus_client import ProcessCollector
from status_helpers import RECEIVING, Watched
from twisted.trial.unittest import SynchronousTestCase

from walsender.status.metrics import PictureCollector
from walsender.status.picture import look

ETC = Path(__file__).parents[3] / "etc"
SERIES = re.compile(r"\b(?:walsender|pg|process)_[a-z_]+\b")


def told() -> set[str]:
    """Return the names of all series of a relay with every limit, as they are scraped."""
    watched = Watched(("max_slot_wal_keep_size", "1GB"), ("max_wal_directory_size", "1GB"))
    watched.upstream, watched.receiver = "host=primary", RECEIVING
    watched.certificate_end = 2000.0
    families = PictureCollector(look(watched.view, 1000.0)).collect()
    names = {sample.name for family in families for sample in family.samples}
    return names | {
        sample.name for one in ProcessCollector(registry=None).collect() for sample in one.samples
    }


def expressions(panel: dict[str, Any]) -> list[str]:
    """Return what a panel asks for."""
    return [target["expr"] for target in panel["targets"]]


class RulesTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Read them."""
        self.text = re.sub("^#.*\n", "", (ETC / "prometheus-rules.yml").read_text(), flags=re.MULTILINE)

    def test_series(self) -> None:
        """The alerts ask for what is told, and for nothing else."""
        asked = set(SERIES.findall(self.text))
        self.assertGreater(len(asked), 10)
        self.assertEqual(set(), asked - told())

    def test_each(self) -> None:
        """Each alert has a name of its own, says how bad it is, and what it is about."""
        names = re.findall(r"^ {6}- alert: (\w+)$", self.text, flags=re.MULTILINE)
        self.assertEqual(sorted(set(names)), sorted(names))
        for word in ("expr: ", "severity: ", "summary: "):
            self.assertEqual(len(names), self.text.count(word), word)


class DashboardTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Read it."""
        self.dashboard: dict[str, Any] = json.loads((ETC / "grafana-dashboard.json").read_text())
        self.panels: list[dict[str, Any]] = self.dashboard["panels"]

    def test_series(self) -> None:
        """Panels and variables ask for what is told, and for nothing else."""
        variables = [one["query"] for one in self.dashboard["templating"]["list"]]
        asked = set(SERIES.findall(json.dumps([*map(expressions, self.panels), variables])))
        self.assertGreater(len(asked), 10)
        self.assertEqual(set(), asked - told())

    def test_importable(self) -> None:
        """Panels have ids of their own, do not overlap, and ask the source that is chosen."""
        ids = [panel["id"] for panel in self.panels]
        self.assertEqual(len(ids), len(set(ids)))
        cells = [
            (x, y)
            for at in (panel["gridPos"] for panel in self.panels)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        ]
        self.assertEqual(len(cells), len(set(cells)))
        self.assertLess(max(x for x, _ in cells), 24)
        sources = {panel["datasource"]["uid"] for panel in self.panels}
        sources |= {target["datasource"]["uid"] for panel in self.panels for target in panel["targets"]}
        self.assertEqual({"${datasource}"}, sources)
        self.assertEqual("datasource", self.dashboard["templating"]["list"][0]["name"])

    def test_onlyOurs(self) -> None:
        """Each question is for the chosen servers only: other exporters have series of the same names."""
        for panel in self.panels:
            for expression in expressions(panel):
                for series in SERIES.finditer(expression):
                    rest = expression[series.end() :]
                    self.assertTrue(rest.startswith('{job=~"$job",instance=~"$instance"'), expression)
