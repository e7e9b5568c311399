"""The page in a browser: headless Chromium opens it, and a script of the test's does what a reader does."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html import unescape

import pytest
from report_runs import bad_run, good_run

from unlearun.report.page import comparison_page, run_page
from unlearun.report.reported_run import read_runs

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed (apt-get install chromium)")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "npo"
    runs = read_runs([good_run(root / "1"), bad_run(root / "2", alpha=2.0), good_run(root / "3", alpha=3.0)])
    return {"run": run_page(runs[0]), "comparison": comparison_page(runs)}


def browse(page: str, script: str, folder, *flags: str):
    """Open a page, run a script that calls report(value), and return what it has reported."""
    inside = f'\nfunction report(value) {{ document.title = "REPORT" + JSON.stringify(value); }}\n{script}\n'
    digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
    policy = re.search(r"script-src '(sha256-[^']+)'", page)
    assert policy
    page = page.replace(policy[0], f"{policy[0]} 'sha256-{digest}'").replace(
        "</body>", f"<script>{inside}</script></body>"
    )
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8")
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=2000", *flags, "--dump-dom", file.as_uri()]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    console = [line for line in found.stderr.splitlines() if "CONSOLE" in line]
    assert not console, console
    title = re.search(r"<title>REPORT(.*?)</title>", found.stdout, re.DOTALL)
    assert title, found.stdout[:300] + found.stderr[-2000:]
    return json.loads(unescape(title[1]))


HELPERS = """
const all = (selector) => [...document.querySelectorAll(selector)];
const seen = (table) => all(`#${table} tbody tr`).filter((row) => row.getClientRects().length);
const type = (selector, text) => {
  const input = document.querySelector(selector);
  input.focus();
  if (input.type === "checkbox") input.checked = text; else input.value = text;
  input.dispatchEvent(new Event("input", {bubbles: true}));
};
const column = (table, at) => seen(table).map((row) => Number.parseFloat(row.cells[at].dataset.value));
"""


def test_a_run_can_be_read(pages, tmp_path):
    found = browse(
        pages["run"],
        HELPERS
        + """
        const outcome = {};
        const boxes = all("figure svg").map((one) => one.getBoundingClientRect());
        outcome.pictures = boxes.map((box) => [box.width, box.height]);
        outcome.texts = all("figure svg text").length;
        outcome.wide = document.documentElement.scrollWidth <= innerWidth;
        const after = all("#values-table thead th button").find((button) => button.textContent === "after");
        after.click();
        outcome.rising = column("values-table", 2);
        outcome.sort = after.closest("th").getAttribute("aria-sort");
        after.click();
        outcome.falling = column("values-table", 2);
        type("[data-filter=values-table]", "retain proba");
        outcome.filtered = seen("values-table").map((row) => row.cells[0].textContent);
        outcome.count = document.querySelector("[data-count=values-table]").value;
        type("[data-filter=values-table]", "no such metric");
        outcome.none = seen("values-table").length;
        outcome.first = seen("examples-table").length;
        outcome.place = document.querySelector("[data-pager] output").value;
        const [back, on] = all("[data-pager] button");
        outcome.ends = [back.disabled, on.disabled];
        on.click();
        outcome.second = seen("examples-table").length;
        outcome.endsThere = [back.disabled, on.disabled];
        type("[data-choose=examples-table]", "retain");
        outcome.retain = seen("examples-table").map((row) => row.cells[0].textContent);
        type("[data-changed=examples-table]", true);
        outcome.unchanged = seen("examples-table").length;
        type("[data-changed=examples-table]", false);
        type("[data-filter=examples-table]", "baker 3");
        outcome.found = seen("examples-table").map((row) => row.cells[0].textContent);
        outcome.marks = all("mark").length;
        report(outcome);
        """,
        tmp_path,
        "--window-size=1200,900",
    )
    assert len(found["pictures"]) == 7
    assert all(width > 200 and height > 100 for width, height in found["pictures"])
    assert found["texts"] > 50
    assert found["wide"]
    assert found["rising"] == sorted(found["rising"])
    assert len(found["rising"]) > 10
    assert found["falling"] == found["rising"][::-1]
    assert found["sort"] == "ascending"
    assert found["filtered"] == ["retain/probability"]
    assert (found["count"], found["none"]) == ("1 found", 0)
    assert (found["first"], found["second"]) == (20, 10)
    assert found["place"] == "page 1 of 2"
    assert (found["ends"], found["endsThere"]) == ([True, False], [False, True])
    assert found["retain"] == [f"What does baker {i} bake?" for i in range(12)]
    assert found["unchanged"] == 0
    assert found["found"] == ["What does baker 3 bake?"]
    assert found["marks"] > 20


def test_runs_can_be_compared(pages, tmp_path):
    found = browse(
        pages["comparison"],
        HELPERS
        + """
        const outcome = {pictures: all("figure svg").length, rows: seen("values-table").length};
        const header = all("#values-table thead th button").find((button) => button.textContent === "model_utility");
        header.click();
        outcome.rising = column("values-table", header.closest("th").cellIndex);
        outcome.names = seen("values-table").map((row) => row.cells[0].textContent.trim());
        type("[data-filter=differences-table]", "alpha");
        outcome.differences = seen("differences-table").map((row) => [...row.cells].map((cell) => cell.textContent));
        report(outcome);
        """,
        tmp_path,
    )
    assert found["rows"] == 3
    assert found["pictures"] >= 8
    assert found["rising"] == sorted(found["rising"])
    assert found["names"][0].startswith("npo/2")
    assert found["differences"] == [["model.alpha", "\u2013", "2.0", "3.0"]]


@pytest.mark.parametrize("kind", ["run", "comparison"])
def test_it_fits_on_a_phone_and_is_read_in_the_dark(kind, pages, tmp_path):
    found = browse(
        pages[kind],
        """
        const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number).reduce((a, b) => a + b) / 765;
        const style = getComputedStyle(document.body);
        const texts = [...document.querySelectorAll("figure svg text")];
        report({
          dark: matchMedia("(prefers-color-scheme: dark)").matches,
          paper: light(style.backgroundColor), ink: light(style.color),
          drawn: Math.min(...texts.map((text) => light(getComputedStyle(text).fill))),
          overflow: document.documentElement.scrollWidth - innerWidth,
        });
        """,
        tmp_path,
        "--window-size=500,900",
        "--blink-settings=preferredColorScheme=0",
    )
    assert found["dark"]
    assert found["paper"] < 0.2
    assert min(found["ink"], found["drawn"]) > 0.7
    assert found["overflow"] <= 0


def test_all_of_it_is_reached_with_the_keyboard(pages, tmp_path):
    """Everything that can be clicked is a link, a button or a field, in the order of the page, and shows its focus."""
    found = browse(
        pages["run"],
        """
        const reached = [...document.querySelectorAll("a, button, input, select, summary, [tabindex]")];
        const shown = reached.filter((one) => { one.focus(); return document.activeElement === one || one.disabled; });
        const named = reached.filter((one) => one.textContent.trim() || one.labels?.length || one.ariaLabel
          || one.getAttribute("aria-labelledby"));
        report({reached: reached.length, shown: shown.length, named: named.length,
          odd: document.querySelectorAll("[tabindex]:not([tabindex='0'])").length});
        """,
        tmp_path,
    )
    assert found["reached"] == found["shown"] == found["named"]
    assert found["odd"] == 0


def test_printed_it_has_no_controls_and_all_rows_of_the_chosen_set(pages, tmp_path):
    found = browse(
        pages["run"],
        HELPERS
        + """
        dispatchEvent(new Event("beforeprint"));
        const printed = seen("examples-table").length;
        dispatchEvent(new Event("afterprint"));
        report([printed, seen("examples-table").length]);
        """,
        tmp_path,
    )
    assert found == [30, 20]
