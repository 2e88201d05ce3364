"""The page in a real browser: no overflow on a phone, nothing fetched, pictures and colours follow the scheme."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from evaluate.report.build_report import write_report
from evaluate.report.pages.translation_page import write_page
from evaluate.report.pictures.palettes import DARK, LIGHT
from tests.evaluate.synthetic import folder_result, image, results
from tests.support.launching import HANG_SECONDS

pytestmark = pytest.mark.slow

QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)
MEASURE = """
<script>
document.querySelectorAll("details").forEach(each => each.open = true);
const wide = [...document.querySelectorAll("body *")].filter(each => !each.closest(".box")
    && each.getBoundingClientRect().right > innerWidth + 1).map(each => each.tagName);
const sticky = document.querySelector("#table-1 ~ .box");
sticky.scrollLeft = 300;
const measured = {
    inner: innerWidth,
    scroll: document.documentElement.scrollWidth,
    wide: wide,
    fetched: performance.getEntriesByType("resource").map(each => each.name).filter(each => !each.startsWith("data:")),
    shown: [...document.images].map(each => each.currentSrc),
    loaded: [...document.images].every(each => each.complete && each.naturalWidth > 0),
    background: getComputedStyle(document.body).backgroundColor,
    heading: sticky.querySelector("tbody th[scope=row]").getBoundingClientRect().left
        - sticky.getBoundingClientRect().left,
    scrolls: sticky.scrollLeft,
};
document.body.insertAdjacentHTML("beforeend", "<pre id='measured'></pre>");
document.querySelector("#measured").textContent = JSON.stringify(measured);
</script>
"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.fail("this test opens the page in chromium, which is not installed: apt-get install chromium")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """Return the page of a report, with a script that measures it."""
    folder = tmp_path_factory.mktemp("report")
    write_report(folder, results())
    text = (folder / "report.html").read_text(encoding="utf-8")
    measured = folder / "measured.html"
    measured.write_text(text.replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
    return measured


def measure(browser: str, page: Path, profile: Path, *options: str) -> tuple[dict[str, Any], str]:
    """Return what the script measured, and what the browser's console said."""
    command = [browser, *QUIET, f"--user-data-dir={profile}", *options, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS, check=True)
    (found,) = re.findall(r'<pre id="measured">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    return json.loads(unescape(found)), "".join(re.findall(r".*CONSOLE.*", done.stderr))


def rgb(colour: str) -> str:
    red, green, blue = (int(colour[n : n + 2], 16) for n in (1, 3, 5))
    return f"rgb({red}, {green}, {blue})"


def test_on_a_phone_only_boxes_scroll_sideways(browser, page, tmp_path):
    measured, console = measure(browser, page, tmp_path, "--window-size=390,900")
    assert measured["inner"] <= 500
    assert (measured["scroll"], measured["wide"]) == (measured["inner"], [])
    assert measured["scrolls"] > 0 and abs(measured["heading"]) <= 2  # the first column stays
    assert measured["fetched"] == [] and console == ""
    assert measured["background"] == rgb(LIGHT["paper"])
    assert measured["loaded"] and all(LIGHT["ink"] in image(shown) for shown in measured["shown"])


def test_the_page_of_a_folder_fits_a_phone_too(browser, tmp_path):
    write_page(tmp_path, folder_result())
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    script = MEASURE.replace("#table-1", "#worst")
    (tmp_path / "measured.html").write_text(text.replace("</body>", f"{script}</body>"), encoding="utf-8")
    measured, console = measure(browser, tmp_path / "measured.html", tmp_path / "profile", "--window-size=390,900")
    assert (measured["scroll"], measured["wide"]) == (measured["inner"], [])
    assert measured["scrolls"] > 0 and measured["fetched"] == [] and console == ""


def test_a_dark_scheme_gives_a_dark_page_with_dark_pictures(browser, page, tmp_path):
    measured, _ = measure(browser, page, tmp_path, "--window-size=1280,900", "--blink-settings=preferredColorScheme=0")
    assert measured["background"] == rgb(DARK["paper"])
    assert measured["shown"] and all(DARK["ink"] in image(shown) for shown in measured["shown"])
