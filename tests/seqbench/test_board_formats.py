"""Each output by its structure: every cell there, nothing that a record says taken for markup."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import re
import time
from pathlib import Path

import pytest
import yaml

from seqbench.board import collect, csv_table, curves, latex, markdown, page, text, words
from seqbench.board.model import Board
from seqbench.board.summary import Method
from seqbench.board.table import build
from tests.seqbench import board_records as made

HOW = Method(confidence=0.95, draws=100, seed=0)
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> | & \\input{x} $% =1+1 `a` __b__ \u2028"


def board_of(results: Path) -> Board:
    entries, problems = collect.read(results)
    return build(title="made_up", entries=entries, expected=None, split="test", method=HOW, notices=problems)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("formats") / "results"
    made.study(folder)
    return folder


@pytest.fixture(scope="module")
def board(results: Path) -> Board:
    return board_of(results)


@pytest.fixture
def hostile(tmp_path: Path) -> Board:
    made.write(tmp_path, label=HOSTILE, family=HOSTILE, encoder_keys={"note": HOSTILE})
    made.write(tmp_path, label=HOSTILE, family=HOSTILE, seed=1, status="failed", reason=HOSTILE)
    made.write(tmp_path, label="=cmd", task=HOSTILE)
    made.write(
        tmp_path, label="＝cmd()", task=HOSTILE, task_label="@SUM(A1)", status="timed_out", reason="$x_{1}$ | \n=1"
    )
    return board_of(tmp_path)


def tables(content: str) -> list[list[list[str]]]:
    """Cells of each Markdown table."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", content, flags=re.M)
    return [[[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in b.splitlines()] for b in blocks]


def test_markdown_has_a_summary_and_a_table_per_task(board: Board) -> None:
    content = markdown.render(board)
    found = tables(content)
    assert len(found) == 1 + len(board.columns)
    for table in found:
        assert len({len(line) for line in table}) == 1
    summary = {line[0]: line for line in found[0][2:]}
    assert list(summary)[-1] == "*majority*"
    assert summary["decoder_only"][3].startswith("**79.4 [")
    assert summary["encoder_only (depth=6)"][3].startswith("**88.8 [")
    assert summary["encoder_decoder"][2] == "out of memory (3 of 3)"
    assert summary["dlinear"][1] == "not run"
    assert summary["majority" if "majority" in summary else "*majority*"][4] == text.DASH
    for failure in words.failures(board):
        assert f"- {markdown.escape(failure)}" in content


def test_markdown_takes_no_text_for_markup(hostile: Board) -> None:
    content = markdown.render(hostile)
    assert "<script" not in content
    assert "<img" not in content
    for table in tables(content):
        assert len({len(line) for line in table}) == 1
    assert markdown.escape("a_b _c_ *d*") == r"a_b \_c\_ \*d\*"
    assert markdown.escape("$x$ [a](javascript:b)") == r"\$x\$ \[a\](javascript:b)"
    assert not re.search(r"(?<!\\)[$]", content)


def test_csv_has_a_line_per_cell_with_every_number(board: Board) -> None:
    lines = list(csv.DictReader(io.StringIO(csv_table.render(board))))
    assert len(lines) == len(board.cells)
    for line in lines:
        cell = board.cells[line["row"], line["column"]]
        assert line["state"] == cell.state
        assert (float(line["mean"]) if line["mean"] else None) == cell.mean
        assert (float(line["high"]) if line["high"] else None) == cell.high
        ends = cell.difference_interval or (None, None)
        for key, value in zip(
            ("difference", "difference_low", "difference_high"), (cell.difference, *ends), strict=True
        ):
            assert (float(line[key]) if line[key] else None) == value
        if cell.costs:
            assert float(line["parameters"]) == cell.costs[0].values["parameters"]
            assert line["machine_class"] == cell.costs[0].machine


def test_csv_holds_no_formula(hostile: Board) -> None:
    lines = list(csv.DictReader(io.StringIO(csv_table.render(hostile))))
    assert {line["row"][:1] for line in lines} == {"<", "'"}
    assert {line["column"] for line in lines} >= {"'@SUM(A1)"}
    formulas = ("=", "+", "-", "@", "\t", "\r", "\n", "＝")
    text_fields = {"board", "task", "column", "kind", "encoder", "row", "family", "failures", "basis", "machine_class"}
    assert not [value for line in lines for key, value in line.items() if key in text_fields and value[:1] in formulas]
    assert "'=cmd" in {line["row"] for line in lines}


def check_latex(content: str) -> int:
    """Braces and environments in balance, as many cells in each line as columns; the number of tables."""
    bare = re.sub(r"\\[\\{}&%$#_]", "", content)
    assert bare.count("{") == bare.count("}")
    assert content.count(r"\begin{") == content.count(r"\end{")
    found = re.findall(r"\\begin\{tabular\}\{(l r*|lr*)\}(.*?)\\end\{tabular\}", content, flags=re.S)
    for columns, body in found:
        lines = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len(lines) > 1
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(columns)}
    return len(found)


def test_latex_tables_are_whole(board: Board, hostile: Board) -> None:
    content = latex.render(board)
    assert check_latex(content) == 1 + len(board.columns)
    assert r"\textbf{88.8}" in content
    captions = re.findall(r"\\caption\{(.*)\}", content)
    assert any(". test: " in caption for caption in captions)
    assert not [caption for caption in captions if re.search(r"[a-z]\.(train|valid|test):", caption)]
    assert r"\emph{majority}" in content
    assert r"encoder\_only (depth=6)" in content
    check_latex(latex.render(hostile))
    assert latex.escape(r"\input{x} $%") == r"\textbackslash{}input\{x\} \$\%"


class Tags(html.parser.HTMLParser):
    """Elements of a page, and the text of its scripts."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.open = False
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open = tag == "script"
        if self.open:
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.open:
            self.scripts[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self.open = False


def test_page_is_one_file_that_asks_for_nothing(board: Board, results: Path) -> None:
    tags = Tags(page.render(board, out=results.parent / "reports" / "x"))
    assert not [tag for tag, _ in tags.tags if tag in ("link", "img", "iframe", "object", "embed", "base")]
    assert not [a for _, a in tags.tags if "src" in a or "style" in a or any(key.startswith("on") for key in a)]
    policy = next(a["content"] for tag, a in tags.tags if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe-inline" not in policy
    data = json.loads(tags.scripts[0])
    assert len(data["runs"]) == len(board.runs)
    first = next(run for run in data["runs"] if run["status"] == "finished")
    assert first["path"] == f"../../results/{first['record']['id']}/record.json"
    config = yaml.safe_load(data["parts"][first["config"]])
    record = next(run.record for run in board.runs if run.record.id == first["record"]["id"])
    assert {**config, "seed": first["seed"]} == record.config
    configs = {run["config"] for run in data["runs"]}
    assert len(configs) == len({(run.row, run.column) for run in board.runs})  # once per cell, not once per seed
    rows = [a for tag, a in tags.tags if tag == "tr" and a.get("class", "").startswith("cell")]  # type: ignore[union-attr]
    assert len(rows) == len(board.cells)


def test_page_lets_no_string_out_of_its_place(hostile: Board, tmp_path: Path) -> None:
    content = page.render(hostile, out=tmp_path)
    tags = Tags(content)
    assert len([tag for tag, _ in tags.tags if tag == "script"]) == 2
    assert not [tag for tag, _ in tags.tags if tag == "img"]
    assert any(row["label"].startswith(HOSTILE) for row in json.loads(tags.scripts[0])["rows"])
    assert json.loads(page.embed({"a": HOSTILE})) == {"a": HOSTILE}
    assert not set(page.embed({"a": HOSTILE})) & set("<>&\u2028")


def test_numbers_that_json_does_not_have_do_not_break_the_page(tmp_path: Path) -> None:
    record = made.write(tmp_path, parameters=123_457)
    path = tmp_path / record.id / "record.json"
    content = path.read_text()
    for number in ("740742000000.0", "1.5"):  # training FLOPs; seconds of a point of the curves
        assert number in content
        content = content.replace(number, "Infinity" if number == "1.5" else "NaN")
    path.write_text(re.sub(r'"sha256": "[0-9a-f]{64}"\n}', '"sha256": null\n}', content))  # without its seal
    data = json.loads(page.embed(page.payload(board_of(tmp_path), out=tmp_path)))
    assert data["cells"][0]["costs"][0]["flops_train"] is None
    assert data["runs"][0]["curve"]["valid"]["seconds"][:3] == [0, None, 3]


def test_curves_are_thinned_with_both_ends_kept(tmp_path: Path) -> None:
    record = made.write(tmp_path, points=1001)
    found = curves.curve(record, 200)
    assert len(found["valid"]["step"]) == 200
    assert (found["valid"]["step"][0], found["valid"]["step"][-1]) == (0, 20_000)
    assert curves.thin(list(range(5)), 200) == [0, 1, 2, 3, 4]
    assert curves.limit_for(10) == 200
    assert curves.limit_for(10_000) == 20
    failed = made.write(tmp_path, seed=1, status="diverged", points=3)
    assert len(curves.curve(failed, 200)["valid"]["value"]) == 3  # without a headline, by the metric it has


def test_words_for_sizes_and_times() -> None:
    assert [text.size(v) for v in (None, 0, 999, 1234, 999_950, 2.5e12)] == ["–", "0", "999", "1.23k", "1M", "2.5T"]
    assert [text.seconds(v) for v in (None, 3.21, 59, 130, 7200)] == ["–", "3.2 s", "59 s", "2.2 min", "2.0 h"]
    assert [text.milliseconds(v) for v in (0.834, 12.44, 150.2)] == ["0.83", "12.4", "150"]
    assert [text.mebibytes(v) for v in (None, 840.4, 2048, 10_239, 10_240)] == [
        "–",
        "840 MiB",
        "2048 MiB",
        "10239 MiB",
        "10.0 GiB",
    ]
    assert words._letters(0) + words._letters(25) + words._letters(26) == "AZAA"


@pytest.mark.slow
def test_a_thousand_records(tmp_path: Path) -> None:
    for i in range(1000):
        made.write(
            tmp_path, task=f"task{i % 10}", encoder=f"encoder{i // 10 % 20}", seed=i // 200, value=i / 1000, points=60
        )
    start = time.perf_counter()
    board = board_of(tmp_path)
    middle = time.perf_counter()
    content = page.render(board, out=tmp_path)
    markdown.render(board), csv_table.render(board), latex.render(board)
    end = time.perf_counter()
    print(f"1000 records: board {middle - start:.2f} s, files {end - middle:.2f} s, page {len(content) / 1e6:.1f} MB")
    assert len(board.runs) == 1000
    assert len(content) < 8e6
