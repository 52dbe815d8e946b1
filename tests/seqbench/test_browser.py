"""The page in a real browser: it sorts, filters, draws and opens rows, with no error and no request."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seqbench.board import collect, page
from seqbench.board.summary import Method
from seqbench.board.table import build
from seqbench.claims import page as claims_page
from seqbench.claims.curves import Dot, Line
from seqbench.claims.sheet import Claim, Comparison
from seqbench.claims.verdict import Judged, Outcome, Plot
from seqbench.record import TrialFacts, TuningFacts
from seqbench.records import verified
from seqbench.records.store import Store
from seqbench.records.verified import Verified
from tests.seqbench import board_records as made

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--disable-quic"),
)
HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>\" onclick=\"window.hacked=1"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium; none is on the PATH"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


def write(results: Path, file: Path, title: str = "made_up") -> Path:
    entries, problems = collect.read(results)
    how = Method(confidence=0.95, draws=100, seed=0)
    board = build(title=title, entries=entries, expected=None, split="test", method=how, notices=problems)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page.render(board, out=file.parent), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    made.study(folder / "results")
    return write(folder / "results", folder / "reports" / "made_up" / "index.html")


@pytest.fixture
def tab(browser: Any, file: Path) -> Iterator[Any]:
    yield from opened(browser, file)


def opened(browser: Any, file: Path) -> Iterator[Any]:
    """The page in a tab; what it complained about or asked for fails the test at its end."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    wrong: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: wrong.append(message.text))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(file.as_uri())
    yield tab
    assert wrong == []
    assert asked == [file.as_uri()]
    tab.close()


def labels(tab: Any, table: str) -> list[str]:
    """Names of the visible rows, from top to bottom."""
    rows = tab.locator(f"#{table} tbody tr:not(.details):visible th")
    return [text.strip() for text in rows.evaluate_all("all => all.map((th) => th.dataset.sort)")]


def test_it_sorts_by_clicks_and_keys(tab: Any) -> None:
    first = labels(tab, "matrix")
    assert first[0] == "encoder_only (depth=2)"
    assert first[-1] == "majority"
    head = tab.locator("#matrix thead th", has_text="listops")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert labels(tab, "matrix")[0] == "encoder_only (depth=6)"
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert labels(tab, "matrix")[0] == "dlinear"
    assert labels(tab, "matrix")[-1] == "majority"  # floors stay below
    etth1 = tab.locator("#matrix thead th", has_text="etth1").locator("button")
    etth1.click()
    assert labels(tab, "matrix")[0] == "dlinear"  # the least error is the best
    assert set(labels(tab, "matrix")[-3:-1]) == {"encoder_decoder", "encoder_only (depth=6)"}  # none: last
    assert tab.locator("#matrix thead th[aria-sort]").count() == 1
    tab.locator("#cells thead th button", has_text="params").click()
    sizes = [
        float(s)
        for s in tab.locator("#cells tbody tr td:nth-child(7)").evaluate_all("a => a.map((td) => td.dataset.sort)")
        if s
    ]
    assert sizes == sorted(sizes)


def test_bars_have_ends_and_say_what_is_beyond_them(tab: Any) -> None:
    rows = tab.locator("#cells tr.cell", has_text="listops")
    ends = rows.locator("small.ends").evaluate_all("a => a.map((e) => [...e.children].map((c) => Number(c.innerText)))")
    assert len({tuple(pair) for pair in ends}) == 1  # one axis for a task
    [low, high] = ends[0]
    dots = rows.locator("svg").evaluate_all(
        "a => a.map((s) => Number(s.querySelector('.dot')?.getAttribute('x1') ?? -1))"
    )
    scores = [float(b) for b in rows.locator("td.score b").all_inner_texts()]
    for dot, score in zip(dots, scores, strict=True):
        assert (dot == -1) == (score < low)
        if dot >= 0:
            assert abs(dot - (3 + 94 * (score - low) / (high - low))) < 0.5
    assert rows.filter(has_text="majority").locator("path.beyond").get_attribute("d").startswith("M9 2L1 7")


def test_data_and_notes_are_filtered_with_their_task(tab: Any) -> None:
    assert tab.locator("#splits tbody tr:visible").count() == 4
    tab.select_option("#filter-task", label="stsb")
    assert tab.locator("#splits tbody tr:visible").all_inner_texts()[0].split() == [
        "stsb",
        "test",
        "150",
        "1350",
        "0",
        "0",
    ]
    assert tab.locator("#splits tbody tr:visible").count() == 1
    assert [text.partition(":")[0] for text in tab.locator("#splits li:visible").all_inner_texts()] == ["stsb"]


def test_names_of_floors_do_not_cover_each_other(browser: Any, tmp_path: Path) -> None:
    results = tmp_path / "results"
    made.write(results, encoder="lstm", value=0.9)
    for encoder, value in (("majority", 0.100), ("random", 0.104), ("third", 0.4)):
        made.write(results, encoder=encoder, family="trivial", value=value, parameters=0)
    for tab in opened(browser, write(results, tmp_path / "index.html")):
        assert tab.locator("#scatter .floorname").all_text_contents() == ["third", "random, majority"]
        assert tab.locator("#scatter .floorline").count() == 3


def test_it_filters(tab: Any) -> None:
    assert len(labels(tab, "cells")) == 28
    tab.select_option("#filter-family", "recurrent")
    assert set(labels(tab, "cells")) == {"lstm"}
    assert labels(tab, "matrix") == ["lstm"]
    tab.locator("#filters button[type=reset]").click()
    tab.locator("#cells tr.cell:visible").nth(
        27
    ).wait_for()  # (wait_for_function evaluates text: the policy forbids it)
    tab.select_option("#filter-task", label="listops")
    assert len(labels(tab, "cells")) == 7
    assert tab.locator("#matrix thead th[data-task]:visible").count() == 1
    assert tab.locator("#scatter svg").get_attribute("aria-label").startswith("listops")
    tab.select_option("#filter-task", "")
    tab.select_option("#filter-modality", "time series")
    assert tab.locator("#matrix thead th[data-task]:visible").all_inner_texts()[0].startswith("etth1")
    tab.select_option("#filter-modality", "")
    tab.fill("#filter-text", "DECODER_only")
    assert set(labels(tab, "cells")) == {"decoder_only"}
    assert tab.locator("#shown").inner_text() == "4 of 28 cells"


def test_it_draws_quality_against_cost(tab: Any) -> None:
    tab.select_option("#scatter-task", label="listops")
    assert tab.locator("#scatter path.mark").count() == 6  # the floor is a line
    assert tab.locator("#scatter line.floorline").count() == 1
    assert tab.locator("#scatter line.error").count() == 6
    front = {"dlinear", "lstm", "decoder_only", "encoder_only (depth=2)", "encoder_only (depth=6)"}
    marks = tab.locator("#scatter path.mark:not(.dominated)").evaluate_all("a => a.map((m) => m.ariaLabel)")
    assert {text.split(" (")[0] if "depth" not in text else text.split(")")[0] + ")" for text in marks} == front
    assert tab.locator("#scatter path.front").get_attribute("d").count("H") == len(front) - 1
    tab.locator("#scatter path.mark").first.hover()
    assert "accuracy" in tab.locator("#tip").inner_text()
    places = tab.locator("#scatter path.mark").evaluate_all("a => a.map((m) => m.getAttribute('d'))")
    tab.locator("#scatter-log").uncheck()
    assert places != tab.locator("#scatter path.mark").evaluate_all("a => a.map((m) => m.getAttribute('d'))")
    tab.select_option("#scatter-task", label="etth1")
    tab.select_option("#scatter-cost", "latency_p50_ms")
    assert tab.locator("#scatter-machine-label").is_visible()  # two machine classes: one at a time
    assert tab.locator("#scatter path.mark").count() == 3
    tab.select_option("#scatter-machine", "1")
    assert tab.locator("#scatter path.mark").count() == 1


def test_it_draws_learning_curves(tab: Any) -> None:
    tab.select_option("#curves-task", label="listops")
    assert tab.locator("#curves path.curve").count() == 6 * 3 + 1  # every run, the diverged one too
    shape = tab.locator("#curves path.curve").first.get_attribute("d")
    assert shape.count("L") == 4
    tab.locator("#curves .legend button", has_text="lstm").click()
    assert tab.locator("#curves path.curve").count() == 16
    tab.select_option("#curves-axis", "seconds")
    assert "seconds" in tab.locator("#curves svg").first.get_attribute("aria-label")
    tab.select_option("#curves-kind", "loss")
    assert tab.locator("#curves path.curve").first.get_attribute("d") != shape
    box = tab.locator("#curves .plot svg").bounding_box()
    tab.mouse.move(box["x"] + box["width"] * 0.11, box["y"] + box["height"] * 0.1)
    assert "seed" in tab.locator("#tip").inner_text()


def test_it_draws_score_against_trials(browser: Any, tab: Any, tmp_path: Path) -> None:
    assert tab.locator("#trials").count() == 0  # no row was tuned
    results = tmp_path / "results"
    given: dict[str, tuple[float | None, ...]] = {"lstm": (0.2, 0.6, 0.4), "tcn": (0.1, None), "gru": ()}
    for encoder, values in given.items():
        record = made.write(results, encoder=encoder, value=0.5)
        trials = [TrialFacts(number=i, settings={}, status="finished", value=v) for i, v in enumerate(values)]
        tuning = TuningFacts(sampler="random", seed=0, space={}, metric="accuracy", best="max", trials=trials, chosen=0)
        if trials:
            Store(results).write(record.model_copy(update={"tuning": tuning}))
    made.write(results, encoder="lstm", task="stsb")
    for tab in opened(browser, write(results, tmp_path / "index.html")):
        figure = tab.locator("#trials figure")
        assert figure.count() == 1
        assert figure.locator("svg").get_attribute("aria-label").startswith("listops: best validation accuracy")
        curves = figure.locator("path.curve")
        assert curves.evaluate_all("a => a.map((p) => p.getAttribute('d').split('L').length)") == [3, 2]
        ticks = figure.locator("svg text[text-anchor=middle]").all_text_contents()
        assert [tick for tick in ticks if tick.isdigit()] == ["1", "2", "3"]
        row = figure.locator("tbody tr", has_text="lstm")
        assert row.locator("td").all_inner_texts() == ["40.0", "53.3", "60.0"]
        assert "1 failed" in figure.locator("tbody tr", has_text="tcn").inner_text()
        colours = [
            tab.evaluate("e => getComputedStyle(e).stroke", curves.first.element_handle()),
            tab.evaluate("e => getComputedStyle(e).backgroundColor", row.locator(".swatch").element_handle()),
        ]
        assert colours[0] == colours[1]
        figure.scroll_into_view_if_needed()
        end = curves.first.evaluate(
            "p => { const at = p.getPointAtLength(1e6).matrixTransform(p.getScreenCTM()); return [at.x, at.y] }"
        )
        tab.mouse.move(*end)
        assert tab.locator("#tip").inner_text() == "lstm\nexpected of the best of 3 trials: 60.0 %"
        tab.select_option("#filter-family", "tcn")
        assert curves.count() == 1
        assert figure.locator("tbody tr:visible").count() == 1
        tab.select_option("#filter-task", label="stsb")
        assert not figure.is_visible()


def test_rows_open_with_config_and_record(tab: Any, file: Path) -> None:
    row = tab.locator("#cells tr.cell", has_text="lstm").filter(has_text="listops")
    button = row.locator("button.open")
    button.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    details = tab.locator("tr.details")
    assert details.locator("tbody tr").count() == 3
    assert "diverged: loss is NaN at step 61" in details.inner_text()
    assert "_target_: encoders.lstm.Encoder" in details.locator("pre.config").inner_text()
    details.locator("tbody tr").nth(2).locator("button").click()
    assert details.locator("pre.config").inner_text().startswith("seed: 2\n")
    assert '"status": "diverged"' in details.locator("pre.record").inner_text()
    assert '"machine_class"' in details.locator("pre.record").inner_text()  # the shared parts are there again
    target = details.locator("a").first.get_attribute("href")
    assert (file.parent / target).is_file()
    tab.locator("#cells thead th button", has_text="Encoder").click()
    assert row.evaluate("row => row.nextElementSibling.className") == "details"  # moves with its row
    row.locator("button.open").click()
    assert details.count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_runs_over_the_edge(browser: Any, file: Path, scheme: str) -> None:
    for width in (1280, 700):
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        tab.goto(file.as_uri())
        tab.locator("#cells button.open").first.click()
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        if width == 1280:  # and the tables need no scrolling
            assert tab.locator(".scroll").evaluate_all("a => a.every((e) => e.scrollWidth <= e.clientWidth)")
        tab.close()
    colours = "e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]"
    tab = browser.new_page(color_scheme=scheme)
    tab.goto(file.as_uri())
    ink, paper = (luminance(c) for c in tab.evaluate(f"({colours})(document.body)"))
    assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 7  # WCAG 2.2, AAA
    assert (paper > ink) == (scheme == "light")
    tab.close()


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)` (WCAG 2.2)."""
    channels = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_hostile_strings_are_text(browser: Any, tmp_path: Path) -> None:
    results = tmp_path / "results"
    made.write(results, label=HOSTILE, family=HOSTILE, encoder_keys={"note": HOSTILE}, machine=HOSTILE)
    made.write(results, label="b", task=HOSTILE, task_label=f"mine {HOSTILE}", status="failed", reason=HOSTILE)
    record = made.write(results, label="c", task=HOSTILE, task_label="theirs", seed=2)
    made.write(
        results, label="d", task="listops", status="timed_out", reason=f"'\"><svg onload=window.hacked=1> {HOSTILE}"
    )
    verdict = Verified(
        id=record.id,
        record_sha256=verified.sha256_of(results / record.id / "record.json"),
        verdict="different",
        reason=HOSTILE,
        time=HOSTILE,
        machine_class=HOSTILE,
        same_machine_class=True,
        code=record.code,
        tolerance=0.0,
    )
    verified.write(results / record.id, verdict)
    for tab in opened(browser, write(results, tmp_path / "index.html", title=HOSTILE)):
        assert tab.title() == f"{HOSTILE} · SeqBench"
        assert HOSTILE in tab.locator("h1").inner_text()
        assert HOSTILE in tab.locator("#failures").inner_text()
        assert "timed out" in tab.locator("#failures").inner_text()
        assert HOSTILE in tab.locator("#matrix sup.refuted").get_attribute("title")
        for i in range(3):
            tab.select_option("#curves-task", index=i)
        for button in tab.locator("#cells button.open").all():
            button.click()
        tab.locator("#scatter path.mark").first.hover()
        assert HOSTILE in tab.locator("#matrix").inner_text()
        assert tab.locator("img, svg[onload], [onclick], [onerror]").count() == 0
        assert tab.locator("script").count() == 2
        assert tab.evaluate("window.hacked === undefined")


def test_no_other_script_may_run(browser: Any, file: Path, tmp_path: Path) -> None:
    """The second wall: even markup that got through would not run, by the page's policy."""
    bad = tmp_path / "index.html"
    bad.write_text(file.read_text().replace("<main>", "<main><script>window.hacked=1</script>"))
    tab = browser.new_page()
    tab.goto(bad.as_uri())
    assert tab.evaluate("window.hacked === undefined")
    assert tab.locator("#scatter path.mark").count() > 0  # ours does
    tab.close()


def test_plots_of_claims_are_lines_over_names_or_numbers(browser: Any, tmp_path: Path) -> None:
    names = tuple(format(i, "04b") for i in range(16))
    dots = tuple(Dot(x=float(i), y=0.1 + 0.01 * i, low=0.1, high=0.3, seeds=3) for i in range(16))
    comparison = Comparison(name="x", a={}, of="test/accuracy", at_least=0.0)
    curve = {"name": "c", "x": "encoder.unmasked", "y": "test/accuracy", "lines": {"a": {}}}
    about = {"title": "t", "paper": "p", "statement": "s", "published": "q", "study": "families"}
    claim = Claim.model_validate(about | {"comparisons": [comparison], "curves": [curve, {**curve, "name": "n"}]})
    line = Line(label="a", dots=dots)
    judged = Judged(
        verdict="not run",
        outcomes=(Outcome(name="x", verdict="not run", estimate=None, why="1 run has no score"),),
        plots=(Plot(name="c", lines=(line,), places=names), Plot(name="n", lines=(line,))),
        ids=(),
        missing=1,
        failed=(),
        seconds=0.0,
    )
    (tmp_path / "index.html").write_text(claims_page.render({"k": claim}, {"k": judged}), encoding="utf-8")
    for tab in opened(browser, tmp_path / "index.html"):
        over_names, over_numbers = tab.locator("figure").all()
        ticks = over_names.locator("text").evaluate_all("all => all.map((text) => text.textContent)")
        assert set(names) <= set(ticks)
        assert "0101" not in over_numbers.inner_text()
        for figure in (over_names, over_numbers):
            assert figure.locator("path.curve").evaluate("path => getComputedStyle(path).fill") == "none"
            assert figure.locator("circle").count() == 16
