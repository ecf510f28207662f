"""The command `python -m analysis.report`: one page that holds everything, and needs no other."""

import base64
import gzip
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

from analysis.figures.specs import FIGURES
from analysis.report import main
from analysis.report_page.scorecard import bar
from analysis.table import ALL, OF_ANY_GRID
from analysis.verdicts.inference import decide
from analysis.verdicts.judge import Claim, load_claims

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.analysis.conftest import Maker

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PHONE = 360


class Page(HTMLParser):
    """What a page refers to, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = dict(attrs)
        self.tags.append(tag)
        self.references += [value for key in ("src", "href") if (value := own.get(key))]
        self.ids += [value for key in ("id",) if (value := own.get(key))]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] not in ("script", "style"):
            self.text += data


def made(results: "Maker", *arguments: str) -> str:
    """The page of the runs, without the library that draws: it is as large as a book."""
    assert main(["scale=quick", f"results_root={results.root}", *arguments]) == 0
    (path,) = results.root.glob("report_quick*.html")
    return path.read_text()


@pytest.fixture(scope="module")
def of_two_grids(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of two finished grids and no others."""
    from tests.analysis.conftest import Maker

    results = Maker(tmp_path_factory.mktemp("report"))
    results.grid("methods_comparison", seeds=3)
    results.grid("unroll_and_window", seeds=1)
    results.transfer(results.configs("unroll_and_window", 1)[0], 0.4, arch="vgg11", width=0)
    return made(results)


def test_it_holds_every_claim_figure_and_table_and_refers_to_nothing_outside(
    of_two_grids: str,
) -> None:
    page = Page(of_two_grids)
    assert page.references
    assert all(reference.startswith(("data:", "#")) for reference in page.references)
    wanted = [f"claim-{claim.id}" for claim in load_claims()]
    wanted += [spec.stem for spec in FIGURES.values()]
    # Every seed of a grid, which Figures 2 and 3 draw: tables for the command line.
    wanted += [f"table-{name}" for name in ALL if name not in OF_ANY_GRID]
    assert [name for name in wanted if name not in page.ids] == []
    assert len(page.ids) == len(set(page.ids))
    anchors = [reference[1:] for reference in page.references if reference.startswith("#")]
    assert set(anchors) <= set(page.ids)


def test_kinds_are_marked_and_the_numbers_of_a_table_s_row_are_one_line(of_two_grids: str) -> None:
    claims = of_two_grids.partition('<section id="claims">')[2].partition("</section>")[0]
    lines = claims.split('<li class="claim"')[1:]
    claimed = [claim for claim in load_claims() if claim.kind != "finding"]
    assert len(lines) == len(claimed) + 6  # of two rows of Tables 1 and 2 each, Figure 4 and C.7
    marked = sum('<span class="kind">literal</span>' in line for line in lines)
    assert marked == sum(claim.kind == "literal" for claim in claimed) > 0
    (row,) = [line for line in lines if "Table 1, RaT-BPTT: each of 10 is" in line]
    assert row.count("not run</li>") == 10
    (whole,) = [line for line in lines if 'id="claim-rat_bptt_leads_throughout"' in line]
    assert "12 of 12 steps above, 0 significantly below" in whole


def test_findings_of_ours_have_a_section_and_counts_of_their_own(of_two_grids: str) -> None:
    findings = [claim for claim in load_claims() if claim.kind == "finding"]
    sections = {
        name: of_two_grids.partition(f'<section id="{name}">')[2].partition("</section>")[0]
        for name in ("claims", "findings")
    }
    assert sections["findings"].count('<li class="claim"') == len(findings)
    for claim in findings:
        assert f'id="claim-{claim.id}"' in sections["findings"]
        assert f'id="claim-{claim.id}"' not in sections["claims"]
    counts = sections["findings"].partition('class="counts">')[2].partition("</p>")[0]
    assert sum(map(int, re.findall(r">(\d+) ", counts))) == len(findings)


def test_each_figure_that_has_runs_names_its_scale_and_the_others_the_command_that_makes_them(
    of_two_grids: str,
) -> None:
    parts = re.split(r'<figure id="(figure\w+)">', of_two_grids.partition('id="tables"')[0])[1:]
    by_stem = dict(zip(parts[::2], parts[1::2], strict=True))
    texts = {key: by_stem.pop(spec.stem) for key, spec in FIGURES.items()}
    assert not by_stem
    with_runs = (1, 2, 3, 6, 7)
    for number in with_runs:
        assert "scale=quick" in texts[number].partition("<figcaption>")[2]
        assert 'src="data:image/' in texts[number]
    for number in set(FIGURES) - set(with_runs):
        assert f"bench.sweep grid={FIGURES[number].grid} scale=quick" in texts[number]


def test_the_lines_of_stills_are_whole_pictures_with_few_digits(of_two_grids: str) -> None:
    kind = "data:image/svg+xml,"
    references = Page(of_two_grids).references
    stills = [unquote(uri.removeprefix(kind)) for uri in references if uri.startswith(kind)]
    assert len(stills) == 5
    for still in stills:
        paths = list(ElementTree.fromstring(still).iter("{http://www.w3.org/2000/svg}path"))
        lines = [path.get("d", "") for path in paths]
        assert any(re.search(r"\.\d\d ", line) for line in lines)
        assert not any(re.search(r"\.\d\d\d", line) for line in lines)


def charts_in(page: str) -> dict[str, Any]:
    found = re.search(r'<script id="charts"[^>]*>(.*?)</script>', page)
    assert found
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def test_a_chart_shows_the_mean_band_and_n_of_the_runs(of_two_grids: str, results: "Maker") -> None:
    charts = charts_in(of_two_grids)
    assert set(charts) == {"chart2-0", "chart3-0", "chart6-0", "chart6-1", "chart7-0"}
    (curve,) = [c for c in charts["chart3-0"]["data"] if c.get("name") == "BPTT"]
    own = [c for c in results.configs("methods_comparison", 3) if c.method == "bptt"]
    values = [100 * results.accuracy(config, 20) for config in own]
    mean = sum(values) / 3
    spread = (sum((value - mean) ** 2 for value in values) / 2) ** 0.5
    text = f"{mean:.1f} ({mean - spread:.1f} to {mean + spread:.1f}), n = 3"
    assert curve["customdata"][2] == text


def test_the_chart_of_figure_2_shows_every_seed(of_two_grids: str) -> None:
    curves = charts_in(of_two_grids)["chart2-0"]["data"]
    assert [curve["name"] for curve in curves].count("BPTT") == 3
    ends = {curve["hovertemplate"].rpartition(" ")[2] for curve in curves}
    assert ends == {"0", "1", "2", "range"}  # of seeds, and of the paper's medians


def test_it_says_what_is_missing_and_each_command_once(of_two_grids: str) -> None:
    missing = of_two_grids.partition('<section id="missing">')[2].partition("</pre>")[0]
    lines = re.findall(r"python -m bench.sweep grid=\w+", missing)
    assert len(lines) == len(set(lines))
    assert "python -m bench.sweep grid=boosting" in lines
    assert "python -m bench.sweep grid=methods_comparison" not in lines


def test_every_frame_of_a_table_has_its_caption_and_the_notes_are_there(of_two_grids: str) -> None:
    table = of_two_grids.partition('<article id="table-1">')[2].partition("</article>")[0]
    caption = "Numbers that the paper quotes for other methods (Table 1"
    assert table.count("<table") == 2
    assert table.index("<table") < table.index(caption) < table.rindex("<table")
    settings = of_two_grids.partition('<article id="table-settings">')[2].partition("</article>")[0]
    assert "Left out where they have no effect: " in settings


@pytest.fixture(scope="module")
def with_markup(tmp_path_factory: pytest.TempPathFactory) -> "tuple[Maker, str]":
    """Records that say what a page could take for its own, and their page."""
    from tests.analysis.conftest import Maker

    results = Maker(tmp_path_factory.mktemp("report"))
    for config in results.configs("window_ablation", 1):
        results.run(config, fingerprint="<script>alert(1)</script>")
    return results, made(results)


def test_what_records_say_is_text_on_the_page_never_markup(
    with_markup: "tuple[Maker, str]",
) -> None:
    _, page = with_markup
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_same_results_make_the_same_page(with_markup: "tuple[Maker, str]") -> None:
    results, page = with_markup
    assert made(results) == page


@pytest.mark.parametrize(
    ("effects", "within"), [([1.0, 1.1, 0.9], True), ([-1.0, -1.1, -0.9], False)]
)
def test_an_interval_is_drawn_within_the_claimed_region_where_the_claim_holds(
    effects: list[float], within: bool
) -> None:
    import numpy as np

    claim = claimed(direction="above", threshold=0.2)
    decision = decide(np.array([effects]), ["one"], claim.region())
    assert (decision.verdict == "holds") == within
    shown = bar(claim, decision.worst)
    assert shown.interval is not None
    low, high = shown.interval
    assert 0 < low < shown.effect < high < 100
    assert (shown.region[0] < low) == within
    assert shown.region[1] == 100
    assert shown.neutral < shown.region[0]


def test_a_single_seed_is_drawn_without_an_interval() -> None:
    import numpy as np

    claim = claimed(direction="equal", margin=1.0)
    decision = decide(np.array([[3.0]]), ["one"], claim.region())
    shown = bar(claim, decision.worst)
    assert shown.interval is None
    assert shown.region[1] < shown.effect


def claimed(**given: Any) -> Claim:
    sides: list[tuple[dict[str, Any], dict[str, Any]]] = [({}, {})]
    return Claim("one", "A claim", "nowhere", "grid", "final_accuracy", sides, **given)


@pytest.fixture
def in_browser(tmp_path: Path) -> Callable[[str, int, str], Any]:
    """What an expression in JavaScript is, once the charts of a page are drawn in a frame of this
    width. Nothing may be written to the browser's console."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")

    def value(page: str, width: int, expression: str) -> Any:
        # A window of a browser has a least width; a frame within one has none.
        asking = """<script>addEventListener("load", () => drawn.then(() => {
          parent.document.body.dataset.seen = JSON.stringify(%s);
        }))</script></body>"""
        page = page.replace("</body>", asking % expression)
        page = page.replace("&", "&amp;").replace('"', "&quot;")
        frame = tmp_path / "frame.html"
        frame.write_text(
            f'<!DOCTYPE html><body><iframe width="{width}" height="700" srcdoc="{page}"></iframe>'
        )
        options = [
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
            *("--disable-quic", "--disable-background-networking", "--disable-component-update"),
            *("--enable-logging=stderr", "--virtual-time-budget=60000"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", frame.as_uri()),
        ]
        ran = subprocess.run([browser, *options], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert "CONSOLE" not in ran.stderr
        seen = re.search(r'data-seen="([^"]*)"', ran.stdout)
        assert seen, ran.stderr
        return json.loads(unescape(seen[1]))

    return value


@pytest.mark.parametrize("frame_width", [PHONE, 900])
def test_in_a_browser_nothing_overflows_nothing_fails_and_every_chart_is_drawn(
    of_two_grids: str, in_browser: Callable[[str, int, str], Any], frame_width: int
) -> None:
    asked = """[document.scrollingElement.clientWidth, document.scrollingElement.scrollWidth,
        document.querySelectorAll(".js-plotly-plot .scatterlayer").length,
        [...document.querySelectorAll(".js-plotly-plot")].filter(chart =>
          chart.querySelector(".main-svg").clientWidth > chart.clientWidth + 1).length,
        document.querySelectorAll("img").length,
        [...document.querySelectorAll("img")].filter(image => image.naturalWidth).length,
        [...document.querySelectorAll(".modebar-btn")].map(button => button.dataset.title)]"""
    found = in_browser(of_two_grids, frame_width, asked)
    width, needed, charts, too_wide, images, loaded, buttons = found
    assert needed <= width <= frame_width
    assert (charts, too_wide) == (5, 0)
    assert "Zoom" in buttons
    assert not [title for title in buttons if title.startswith("Share")]  # it would send numbers
    assert images == loaded == 5


def test_a_browser_that_cannot_unpack_the_charts_shows_pictures(
    of_two_grids: str, in_browser: Callable[[str, int, str], Any]
) -> None:
    shown = """["chart", "still"].map(kind =>
        [...document.querySelectorAll("." + kind)].filter(one => one.offsetParent).length)"""
    assert in_browser(of_two_grids, 900, shown) == [5, 0]
    older = of_two_grids.replace("<head>", "<head><script>delete self.DecompressionStream</script>")
    assert in_browser(older, 900, shown) == [0, 4]
