"""The table of settings against the class, the sample file and the reference: they say the same."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walsender.settings import SETTINGS, Setting, Settings, help_text
from walsender.settings.groups import GROUPS

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "etc" / "walsender.conf"
REFERENCE = ROOT / "docs" / "settings.md"


def reference_row(setting: Setting) -> str:
    """Return the row that the reference must have for *setting*."""
    short = f" (`-{setting.short}`)" if setting.short else ""
    default = f"`{setting.default}`" if setting.default else setting.derived_default or "required"
    effect = "at start" if setting.restart_required else "on reload"
    cells = f"[`{setting.name}`](#{setting.name}){short} | {default} | {setting.kind.values} | {effect}"
    return f"| {cells} |"


class TableTests(SynchronousTestCase):
    def test_aFieldForEachRow(self) -> None:
        """`Settings` has a field for each row of the table, in its order, and says where they are from."""
        self.assertEqual(
            [one.name for one in dataclasses.fields(Settings)],
            [*(setting.name for setting in SETTINGS), "config_file", "sources"],
        )

    def test_everyDefaultIsExplained(self) -> None:
        """A row has a default or computes one and says how; only the WAL directory must be given."""
        for setting in SETTINGS:
            self.assertEqual(bool(setting.derive), bool(setting.derived_default), setting.name)
        self.assertEqual(
            [setting.name for setting in SETTINGS if not setting.default and not setting.derive],
            ["wal_directory"],
        )

    def test_everyGroup(self) -> None:
        """Each setting is in one group."""
        self.assertEqual(
            sorted(setting.name for setting in SETTINGS),
            sorted(name for names in GROUPS.values() for name in names),
        )


class HelpTests(SynchronousTestCase):
    """``twistd walsender --help``."""

    def test_everySetting(self) -> None:
        """Each setting is there once, below its group's title, with what it does, when and its default."""
        text = help_text()
        for setting in SETTINGS:
            option = f"--{setting.name.replace('_', '-')}={setting.metavar}"
            self.assertEqual(1, text.count(f" {option}"), option)
            rest = " ".join(text.partition(f" {option}")[2].split())
            default = setting.default or setting.derived_default
            expected = setting.description
            expected += " (restart)" if setting.restart_required else ""
            expected += f" [{default}]" if default else ""
            self.assertTrue(rest.startswith(" ".join(expected.split())), rest[:200])
            if setting.short:
                self.assertIn(f"  -{setting.short}, {option}", text)
        titles = re.findall(r"^(\S.*):$", text, flags=re.MULTILINE)
        self.assertEqual(["Usage", "Options", *GROUPS], titles)

    def test_width(self) -> None:
        """It fits a terminal."""
        for line in help_text().splitlines():
            self.assertLessEqual(len(line), 80)
            self.assertEqual(line.rstrip(), line)

    def test_otherOptions(self) -> None:
        """What is no setting is there, too."""
        for option in ("--config-file=FILE", "-c NAME=VALUE", "--version", "--help"):
            self.assertIn(f" {option} ", help_text())


class SampleTests(SynchronousTestCase):
    def test_commentedOutItSetsNothing(self) -> None:
        """As it is shipped, the sample leaves every default."""
        loaded = Settings.load([("wal-directory", "/wal")], str(SAMPLE))
        self.assertEqual(loaded, Settings.load([("wal-directory", "/wal")]))
        self.assertEqual(
            {source for name, source in loaded.sources.items() if name != "wal_directory"}, {"default"}
        )

    def test_uncommentedItSetsTheDefaults(self) -> None:
        """With all its settings uncommented the sample gives each of them its default."""
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory, "walsender.conf")
            file.write_text(re.sub(r"^#(?=[a-z_]+ = )", "", SAMPLE.read_text(), flags=re.MULTILINE))
            loaded = Settings.load([], str(file))
        self.assertEqual(loaded, Settings.load([("wal-directory", "/var/lib/walsender")]))
        self.assertNotIn("default", loaded.sources.values())

    def test_listsEachSettingOnce(self) -> None:
        """The sample has each setting once, in its group, below its description from the table."""
        found = re.findall(r"^# (.*)\n#([a-z_]+) = ", SAMPLE.read_text(), flags=re.MULTILINE)
        by_name = {setting.name: setting for setting in SETTINGS}
        expected = [
            (f"{by_name[name].description}{' (restart)' * by_name[name].restart_required}", name)
            for names in GROUPS.values()
            for name in names
        ]
        self.assertEqual(found, expected)

    def test_groups(self) -> None:
        """Above each group stands its title."""
        found = re.findall(r"^\n# ([^\n]*)\n\n", SAMPLE.read_text(), flags=re.MULTILINE)
        self.assertEqual(len(GROUPS), len(found))
        for title, line in zip(GROUPS, found, strict=True):
            self.assertTrue(line.startswith(title), line)


class ReferenceTests(SynchronousTestCase):
    def test_tableIsTheTable(self) -> None:
        """The reference lists exactly the settings, with defaults, values and when they take effect."""
        rows = [line for line in REFERENCE.read_text().splitlines() if line.startswith("| [")]
        self.assertEqual(rows, [reference_row(setting) for setting in SETTINGS])

    def test_eachHasItsSection(self) -> None:
        """The reference explains each setting in a section of its own, in the same order."""
        sections = re.findall(r"^### (.*)$", REFERENCE.read_text(), flags=re.MULTILINE)
        self.assertEqual(sections, [setting.name for setting in SETTINGS])
