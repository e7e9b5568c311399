"""The page: what stands in it, that texts are texts, and that it is sound HTML which asks for nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from report_runs import bad_run, evaluation, good_run, make_run

from unlearun.report.contents import MOST_ROWS, example_sets
from unlearun.report.page import breakable, comparison_page, run_page
from unlearun.report.reported_run import read_runs

VOID = {"meta", "input", "br", "link", "wbr"}
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}\u202e"


class Reader(HTMLParser):
    """Checks that tags are closed in order, and gathers ids, what is asked for, and the cells of tables."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.asked: list[str] = []
        self.scripts = 0
        self.handlers: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.scripts += tag == "script"
        self.handlers += [name for name in found if name.startswith("on")]
        self.asked += [found[name] for name in ("src", "href", "xlink:href") if found.get(name)]
        self.references += [found[name] for name in ("aria-labelledby", "aria-controls") if name in found]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "npo"
    return read_runs([good_run(root / "1"), bad_run(root / "2", alpha=2.0)])


@pytest.fixture
def run(runs):
    return runs[0]


@pytest.fixture(scope="module")
def pages(runs):
    return {"run": run_page(runs[0]), "comparison": comparison_page(runs)}


@pytest.mark.parametrize("kind", ["run", "comparison"])
def test_it_is_sound_and_asks_for_nothing(kind, pages):
    page = pages[kind]
    found = Reader(page)
    assert len(set(found.ids)) == len(found.ids)
    assert set(found.references) <= set(found.ids)
    assert all(link.startswith("#") and link[1:] in found.ids for link in found.asked)
    assert found.scripts == 1
    assert not found.handlers
    assert not re.search(r"@import|url\((?!#)|https?://(?!www\.w3\.org)", page)


@pytest.mark.parametrize("kind", ["run", "comparison"])
def test_its_own_script_and_no_other_may_run(kind, pages):
    page = pages[kind]
    script = page.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in page
    assert "default-src 'none'" in page


def test_all_parts_are_there(pages, run):
    page = pages["run"]
    for part in ("warnings", "outcome", "pictures", "values", "examples", "how"):
        assert f'<section id="{part}"' in page
        assert f'href="#{part}"' in page
    assert page.count("<svg") == 7  # trade-off, steps, two losses, ROC, likelihood, truth ratios
    assert page.index('id="warnings"') < page.index('id="outcome"')
    for name in ("forget_quality", "digest-of-forget", "AdamW, lr 1e-05", "unlearun 0.1.0", "beta: 0.1"):
        assert name in page.replace("<wbr>", "")


def test_pictures_take_the_pages_colours(pages):
    """Text and axes in black would not be seen in the dark."""
    for page in pages.values():
        for drawing in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
            colours = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", drawing))
            assert not colours, colours
            assert "currentColor" in drawing
            assert re.match(r'<svg role="img" aria-label="[^"]{20,}"', drawing)
            assert "font-family" not in drawing
            assert "DejaVu" not in drawing


def test_texts_of_rows_and_settings_are_shown_as_they_are(tmp_path):
    end = evaluation(5, 0.11, 0.9, {"forget": HOSTILE, "retain": HOSTILE}, model=HOSTILE, method=HOSTILE)
    for record in end.examples["forget"].values():
        record.update(question=HOSTILE, answer=HOSTILE)
    end.summary[f"{HOSTILE}/probability"] = 0.5
    folder = make_run(tmp_path / "npo" / "1", evaluation(0, 0.9, 0.9), end, losses=False, hostile=HOSTILE)
    other = make_run(tmp_path / "npo" / "2", evaluation(0, 0.9, 0.9), end, losses=False, hostile="no")
    for page in (run_page(read_runs([folder])[0]), comparison_page(read_runs([folder, other]))):
        assert Reader(page).scripts == 1
        assert "<img" not in page
        assert "alert(1)</script>" not in page
        assert "{{ 7 * 7 }}" in page
        assert "&lt;img src=x onerror=alert(1)&gt;" in page.replace("<wbr>", "")


def test_examples_stand_in_order_with_what_they_share(run):
    sets = example_sets(run)
    assert [one.name for one in sets] == ["forget", "retain", "holdout"]
    first = sets[0].rows[0]
    assert first.prompt == "Where was author 0 born?"
    assert [piece.text for piece in first.before if piece.shared] == ["Author 0 was born in town 0"]
    assert first.changed
    assert not sets[1].rows[0].changed


def test_of_very_many_examples_it_says_how_many_are_left_out(tmp_path):
    end = evaluation(0, 0.5, 0.9)
    record = end.examples["forget"]["0"]
    end.examples["forget"] = {str(i): record for i in range(MOST_ROWS + 7)}
    (run,) = read_runs([make_run(tmp_path / "npo" / "1", end, losses=False)])
    assert example_sets(run)[0].left_out == 7
    assert f"forget ({MOST_ROWS} of {MOST_ROWS + 7})" in run_page(run)
    assert "7 rows of forget are left out here; all stand in eval/step=0.json." in run_page(run)


def test_what_was_only_measured_has_nothing_before(tmp_path):
    (run,) = read_runs([make_run(tmp_path / "gold" / "1", evaluation(7, 0.5, 0.9), losses=False)])
    page = run_page(run)
    Reader(page)
    assert "<h1>org/tiny, measured</h1>" in page
    assert "changed answers only" not in page
    assert ">before<" not in page


def test_nothing_to_warn_of_is_said(pages):
    assert "Nothing to warn of" in pages["run"]
    assert "Read this first" in pages["comparison"]
    assert "npo/2: Collapsed" in pages["comparison"]


def test_a_comparison_has_the_front_and_what_differs(pages):
    page = pages["comparison"]
    table = page.partition('id="differences-table"')[2].partition("</table>")[0].replace("<wbr>", "")
    assert re.findall(r'<th scope="row">(.*?)</th>', table) == ["model.alpha"]
    assert re.findall(r"<code>(.*?)</code>", table) == ["\u2013", "2.0"]
    rows = page.partition('id="values-table"')[2].partition("</table>")[0]
    assert re.search(r'npo/1 <span class="front">front</span>', rows)


def test_long_names_may_break():
    assert breakable("forget/exact_memorization") == "forget/<wbr>exact_<wbr>memorization"
    assert breakable("a.b") == "a.<wbr>b"
    assert breakable("<i>") == "&lt;i&gt;"


def test_numbers_for_sorting_are_whole(pages, run):
    value = run.last.summary["forget/probability"]
    assert f'data-value="{value}"' in pages["run"]
