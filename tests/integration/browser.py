"""
Chromium without a window, as the tests of the page use it.

Selenium starts Debian's Chromium and its driver by their paths, so that it looks for none and fetches none.
"""

from __future__ import annotations

import io
import json
import shutil
from typing import TYPE_CHECKING, Any, Final, Self

import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from walsender.testing.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

MISSING: Final = "needs Chromium and its driver: apt-get install chromium chromium-driver"
DEADLINE_S: Final = 60

# What colour text has and what is behind it, both as the eye gets them: WCAG 2.2, section 1.4.3.
_CONTRASTS: Final = """
const parse = (text) => {
  const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
  return {rgb: [r, g, b], a};
};
const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const luminance = (rgb) => rgb.map(linear).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (node) => {
  for (; node; node = node.parentElement) {
    const {rgb, a} = parse(getComputedStyle(node).backgroundColor);
    if (a === 1) return rgb;
    if (a !== 0) throw new Error("half transparent");
  }
  throw new Error("nothing behind");
};
const hasText = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
const seen = (node) => hasText(node) && node.checkVisibility({opacityProperty: true});
return [...document.querySelectorAll("body *")].filter(seen).map((node) => {
  const style = getComputedStyle(node);
  const colour = parse(node.closest("svg") ? style.fill : style.color).rgb;
  const [low, high] = [luminance(colour), luminance(behind(node))].sort((a, b) => a - b);
  return [node.textContent.trim(), (high + 0.05) / (low + 0.05)];
});
"""

_ROWS: Final = """
const named = (node) => [node.dataset.f, node.textContent];
return [...document.querySelectorAll(`#${arguments[0]} > :not(template)`)].map((row) => ({
  kind: row.className,
  mark: row.querySelector("use")?.getAttribute("href"),
  ...Object.fromEntries([...row.querySelectorAll("[data-f]")].map(named)),
}));
"""


def programs() -> tuple[str, str]:
    """Return the paths of Chromium and its driver, or end everything."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.exit(MISSING, returncode=1)
    return chromium, driver


class Browser:
    """One window, and all that its page has asked for and complained of."""

    def __init__(self) -> None:
        chromium, driver = programs()
        options = Options()
        options.binary_location = chromium
        for argument in (
            "--headless=new",
            "--no-sandbox",  # which root cannot have, and no page of others is opened
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--window-size=1280,900",
            "--font-render-hinting=none",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(driver))
        self.complaints: list[str] = []
        self.requests: list[str] = []

    def open(
        self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False, scale: float = 1
    ) -> None:
        """Load a page, in a window of that size."""
        self.look(width=width, height=height, dark=dark, scale=scale)
        self.driver.get(url)

    def look(self, *, width: int = 1280, height: int = 900, dark: bool = False, scale: float = 1) -> None:
        """Change the window."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def forbid_scripts(self, *, forbidden: bool) -> None:
        """Be a browser without JavaScript, or no longer."""
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": forbidden})

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what a piece of JavaScript returns."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """Return the text of an element."""
        return str(self.run("return document.querySelector(arguments[0]).textContent", selector))

    def rows(self, name: str) -> list[dict[str, str]]:
        """Return class, mark and fields of each row of a list, by the list's id."""
        found: list[dict[str, str]] = self.run(_ROWS, name)
        return found

    def row(self, text: str, name: str = "standby-rows") -> dict[str, str]:
        """Return the row of an application."""
        (found,) = [row for row in self.rows(name) if row["application_name"] == text]
        return found

    def contrasts(self) -> list[tuple[str, float]]:
        """Return each text that is seen, and how much its colour differs from what is behind it."""
        return [(text, ratio) for text, ratio in self.run(_CONTRASTS)]

    def save_picture(self, path: Path) -> None:
        """Write what is seen, with few colours: a fifth of the bytes of what the browser writes."""
        with Image.open(io.BytesIO(self.driver.get_screenshot_as_png())) as picture:
            few = picture.convert("RGB").quantize(128, dither=Image.Dither.NONE)
            few.save(path, optimize=True)

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait until the page shows something."""
        wait_until(condition, DEADLINE_S, what, logs=[self], interval_s=0.1)

    def log_tail(self) -> str:
        """See `walsender.testing.processes.HasLog`."""
        self.read_logs()
        shown = str(self.run("return document.body.innerText"))
        return "\n".join(["--- page ---", shown, "--- browser ---", *self.complaints[-25:]])

    def read_logs(self) -> None:
        """Take over what has been logged since: complaints of any kind, and requests."""
        self.complaints += [entry["message"] for entry in self.driver.get_log("browser")]
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.driver.quit()
