from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from tasks.classification import Classification
from tasks.data.base import SPLITS, DataError
from tasks.data.conll import Conll
from tasks.data.files import Files
from tasks.metrics.accuracy import Accuracy
from tasks.tokenizers import Bytes


def files(train: Path, **changes: Any) -> Files:
    settings: dict[str, Any] = {
        "train": str(train),
        "valid": str(train),
        "test": str(train),
        "columns": {"source": "text", "target": "label"},
        "source_type": "text",
        "target_type": "text",
        "delimiter": None,
        "quoted": True,
        "valid_share": 0.2,
        "test_share": 0.3,
        "split_seed": 0,
    }
    return Files(**(settings | changes))


def conll(train: Path, **changes: Any) -> Conll:
    settings: dict[str, Any] = {
        "train": str(train),
        "valid": str(train),
        "test": str(train),
        "word_column": 0,
        "tag_column": -1,
        "stream_columns": {},
        "separator": "space",
        "comment": None,
        "valid_share": 0.2,
        "test_share": 0.3,
        "split_seed": 0,
    }
    return Conll(**(settings | changes))


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def pairs(data: Files | Conll, split: str = "train") -> list[tuple[Any, Any]]:
    data.check()
    return [(e.source, e.target) for e in data.read(split)]


ROWS = [("NA", "null"), ('a "quoted", word', "1"), ("two\nlines", "nan"), ("  é ü 漢字 ", "x"), ("None", "5.0")]


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_texts_untouched(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"data.{form}"
    rows = [{"id": i, "label": y, "text": x} for i, (x, y) in enumerate(ROWS)]
    if form == "parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif form == "jsonl":
        write(path, "\n".join(json.dumps(row) for row in rows) + "\n\n")
    else:
        import pandas

        pandas.DataFrame(rows).to_csv(path, index=False, sep={"csv": ",", "tsv": "\t"}[form])
    assert pairs(files(path)) == ROWS


def test_a_byte_order_mark_windows_lines_and_other_delimiters(tmp_path: Path) -> None:
    path = write(tmp_path / "a.CSV", "\ufefftext;label\r\nx, y;1\r\n\r\nz;2\r\n")
    assert pairs(files(path, delimiter=";")) == [("x, y", "1"), ("z", "2")]
    path = write(tmp_path / "b.csv", "text\tlabel\nx, y\t1\n")
    assert pairs(files(path, delimiter="tab")) == [("x, y", "1")]


def test_quotation_marks_as_characters(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'text\tlabel\n"open\t1\n5" nail\t2\n')
    assert pairs(files(path, quoted=False)) == [('"open', "1"), ('5" nail', "2")]
    with pytest.raises(DataError, match=r"a\.tsv line 2: .* closed on line 3 before ' '.*\n.*task\.data\.quoted=false"):
        pairs(files(path))


def test_numbers_words_pairs_and_values_that_are_not_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"a": "x y", "b": ["z", "w"], "n": 3, "t": true, "f": "2.5e1"}\n')
    columns = lambda source, target: {"columns": {"source": source, "target": target}}  # noqa: E731
    assert pairs(files(path, **columns("a", "f"), target_type="number")) == [("x y", 25.0)]
    assert pairs(files(path, **columns(["a", "f"], "n"))) == [(("x y", "2.5e1"), "3")]
    assert pairs(files(path, **columns("a", "b"), source_type="words", target_type="words")) == [
        (["x", "y"], ["z", "w"])
    ]
    assert pairs(files(path, **columns(["a"], "t"))) == [("x y", "True")]
    assert pairs(files(path, **columns("a", "n"), target_type="number")) == [("x y", 3.0)]


def test_parquet_numbers_lists_and_gaps(tmp_path: Path) -> None:
    table = pyarrow.table({"text": [["a", "b"], ["c"]], "label": [1.5, float("nan")]})
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet row 2, column 'label': the value is missing"):
        pairs(files(tmp_path / "a.parquet", source_type="words", target_type="number"))
    parquet.write_table(table.slice(0, 1), tmp_path / "a.parquet")
    assert pairs(files(tmp_path / "a.parquet", source_type="words", target_type="number")) == [(["a", "b"], 1.5)]


BAD: list[tuple[str, str | bytes, dict[str, Any], str]] = [
    ("a.csv", "", {}, r"task\.data\.train: .*a\.csv is empty"),
    ("a.csv", "text,label\n", {}, r"a\.csv has no rows"),
    ("a.json", "[]", {}, r"a\.json is none of \.csv, \.tsv, \.jsonl"),
    (
        "a.csv",
        "text,labels\nx,1\n",
        {},
        r"line 1: no column 'label' \(did you mean 'labels'\?\); there are: 'text', 'l",
    ),
    (
        "a.csv",
        "text;label\nx;1\n",
        {},
        r"line 1: no columns by ','; the file looks separated by ';': set 'task\.data\.delimiter=\";\"'\nIts col",
    ),
    ("a.csv", '"text";"label"\n"x";"1"\n', {}, r"looks separated by ';'.*\nIts columns are then: 'text', 'label'"),
    ("a.csv", "a\tstars\nx\t1\n", {}, r"by a tab: set task\.data\.delimiter=tab\n.* 'a', 'stars'"),
    (
        "a.csv",
        "sep=;\ntext;label\nx;1\n",
        {},
        r"line 1: 'sep=;' is a note to Excel, .* set 'task\.data\.delimiter=\";\"'",
    ),
    ("a.csv", "sep=,\ntext,label\nx,1\n", {}, r"line 1: 'sep=,' is a note to Excel, not the header; take it out$"),
    ("a.tsv", "text,label\nx,1\n", {}, r"by a tab; the file looks separated by ','"),
    ("a.csv", "a,x;label;text\nx,1\n", {}, r"looks separated by ';'"),
    ("a.csv", "a,x;y;z\nx,1\n", {}, r"no column 'text'; there are: 'a', 'x;y;z'"),
    ("a.csv", "text,text,label\nx,y,1\n", {}, r"there are 2 columns 'text'"),
    ("a.csv", "text,label\nx,1\ny,1,2\n", {}, r"a\.csv line 3: 3 fields, but the header has 2; a field with ',' in"),
    ("a.csv", "text,label\nx,1\ny\n", {}, r"a\.csv line 3: 1 fields"),
    ("a.csv", "text,label\nx,1\ny,\n", {}, r"a\.csv line 3, column 'label': the value is empty"),
    ("a.csv", "text,label\n  ,1\n", {}, r"a\.csv line 2, column 'text': the value is empty"),
    (
        "a.csv",
        'text,label\n"a\nb",1\n"c,2\nd,3\n',
        {},
        r"a\.csv line 4: a quotation mark opens a field here and nothing",
    ),
    ("a.csv", 'text,label\r\n"a\r\nb","c,2\r\nd,3\r\n', {}, r"a\.csv line 3: a quotation mark opens a field here"),
    ("a.csv", 'text,label\n"c,2\nd,3\n"e, f",4\n', {}, r"a\.csv line 2: the field .* is closed on line 4 before 'e'"),
    ("a.csv", 'text,label\nd,"3"4\n', {}, r"a\.csv line 2: the field .* is closed before '4', where ',' or the end"),
    ("a.csv", 'text,label\n"a\nb"\n', {}, r"a\.csv line 2: 1 fields"),
    ("a.csv", b"text,label\nx,1\ncaf\xe9,2\n", {}, r"a\.csv line 3: byte 0xe9 is not UTF-8"),
    ("a.csv", "text,label\nx,nan\n", {"target_type": "number"}, r"column 'label': 'nan' is not a finite number"),
    ("a.csv", "text,label\nx,two\n", {"target_type": "number"}, r"line 2, column 'label': 'two' is not a finite"),
    ("a.jsonl", '{"text": "x", "label": 1}\n{"text": "y", \n', {}, r"a\.jsonl line 2: not JSON \(.* at character"),
    ("a.jsonl", '[{"text": "x",\n "label": 1}]', {}, r"a\.jsonl: a JSON list, not an object .*\nconvert it: jq -c"),
    ("a.jsonl", '{"text": "x", "label": ["y"]}\n', {}, r"\['y'\] is not text; .*task\.data\.target_type=words"),
    (
        "a.csv",
        'text,label\nx,"1,5"\n',
        {"target_type": "number"},
        r"'1,5' is not a .*; decimals are written with a point",
    ),
    ("a.jsonl", f'{{"text": "x", "label": {"1" * 5000}}}', {}, r"a\.jsonl line 1: JSON that can't be read \(Exceeds"),
    ("a.jsonl", f'{{"text": {"[" * 99999}', {}, r"a\.jsonl line 1: JSON that can't be read \(maximum recursion"),
    ("a.jsonl", f'{{"text": "x", "label": {"1" * 500}}}', {"target_type": "number"}, r"1+ is not a finite number"),
    ("a.jsonl", '["x", 1]\n', {}, r"a\.jsonl line 1: each line must be an object \{\.\.\.\}, this one is a list"),
    ("a.jsonl", '{"text": "x", "label": 1}\n{"text": "y"}\n', {}, r"a\.jsonl line 2: no column 'label'"),
    ("a.jsonl", '{"text": "x", "label": null}\n', {}, r"line 1, column 'label': the value is missing"),
    ("a.jsonl", '{"text": ["x"], "label": 1}\n', {}, r"\['x'\] is not text; .*task\.data\.source_type=words"),
    ("a.jsonl", '{"text": [1, [2]], "label": 1}\n', {"source_type": "words"}, r"is not a list of words"),
    ("a.jsonl", '{"text": "\\ud83d", "label": 1}\n', {}, r"half a character"),
    ("a.jsonl", '{"text": "x", "label": true}\n', {"target_type": "number"}, r"True is not a finite number"),
    ("a.parquet", "PAR1 no", {}, r"a\.parquet: not a Parquet file that can be read"),
]


@pytest.mark.parametrize("name, content, changes, message", BAD)
def test_broken_files_are_named_with_the_line(
    tmp_path: Path, name: str, content: str | bytes, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        pairs(files(write(tmp_path / name, content), **changes))
    assert len(str(caught.value).splitlines()) <= 2


def test_missing_files_and_folders(tmp_path: Path) -> None:
    write(tmp_path / "reviews.csv", "text,label\nx,1\n")
    with pytest.raises(
        DataError, match=r"task\.data\.train: .*review\.csv is not there \(did you mean .*reviews\.csv\?"
    ):
        files(tmp_path / "review.csv").check()
    with pytest.raises(DataError, match=r"is a folder, not a file"):
        files(tmp_path).check()
    with pytest.raises(DataError, match=r"task\.data\.test: .*nowhere/x\.csv is not there"):
        files(tmp_path / "reviews.csv", test=str(tmp_path / "nowhere" / "x.csv")).identity()


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.csv", "text,label\nx,1\n")

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"a\.csv: can't be read \(Permission denied\)"):
        pairs(files(path))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"columns": {"source": "a"}}, "columns: needs the keys source and target .*, got source"),
        ({"columns": {"source": "a", "target": ["b", "c"]}}, "columns: source is one name or a list"),
        ({"columns": {"source": [], "target": "b"}}, "columns: source is one name or a list"),
        ({"delimiter": "::"}, "delimiter: one character"),
        (
            {"valid": None, "test": None, "valid_share": 0.5, "test_share": 0.5},
            "valid_share: with test_share it takes 1;",
        ),
        ({"valid": None, "valid_share": 0.0}, "valid_share: 0, but valid is null"),
    ],
)
def test_impossible_arguments(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        files(tmp_path / "a.csv", **changes)


def test_identity_is_the_content_and_not_the_place(tmp_path: Path) -> None:
    content = "text,label\nx,1\ny,2\nz,3\n"
    (tmp_path / "b").mkdir()
    one = files(write(tmp_path / "a.csv", content), valid=None).identity()
    other = files(write(tmp_path / "b" / "a.csv", content), valid=None).identity()
    assert one == other
    assert [fact.sha256 for fact in one] == [hashlib.sha256(content.encode()).hexdigest()] * 2  # train and test
    assert str(tmp_path) not in repr(one)
    assert Files.paths == Conll.paths == {"train", "valid", "test"}


def test_shares_are_exact_seeded_and_keep_equal_sources_together(tmp_path: Path) -> None:
    lines = [f"t{i},{i}" for i in range(100)] + [f"t{i},again" for i in range(0, 100, 3)]
    path = write(tmp_path / "a.csv", "\n".join(["text,label", *lines]))
    data = files(path, valid=None, test=None)
    parts = {split: pairs(data, split) for split in SPLITS}
    assert sorted(row for rows in parts.values() for row in rows) == sorted(tuple(line.split(",")) for line in lines)
    sources = {split: {x for x, _ in rows} for split, rows in parts.items()}
    assert {split: len(found) for split, found in sources.items()} == {"train": 50, "valid": 20, "test": 30}
    assert not sources["train"] & sources["valid"] | sources["train"] & sources["test"]
    assert not sources["valid"] & sources["test"]

    shuffled = write(tmp_path / "b.csv", "\n".join(["text,label", *reversed(lines)]))
    again = files(shuffled, valid=None, test=None)
    assert {split: sorted(pairs(again, split)) for split in SPLITS} == {s: sorted(rows) for s, rows in parts.items()}
    assert pairs(files(path, valid=None, test=None, split_seed=1), "test") != parts["test"]
    kept = files(path, valid=None)
    assert len(pairs(kept, "test")) == len(lines)
    assert len({x for x, _ in pairs(kept, "valid")}) == 20


def test_text_that_parquet_holds_as_bytes(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"text": ["é".encode()], "label": [b"1"]}), tmp_path / "a.parquet")
    assert pairs(files(tmp_path / "a.parquet")) == [("é", "1")]
    parquet.write_table(pyarrow.table({"text": [["é".encode(), b"a b"]], "label": ["1"]}), tmp_path / "a.parquet")
    assert pairs(files(tmp_path / "a.parquet", source_type="words")) == [(["é", "a b"], "1")]
    parquet.write_table(pyarrow.table({"text": [[b"caf\xe9"]], "label": ["1"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet row 1, column 'text': byte 0xe9 is not UTF-8"):
        pairs(files(tmp_path / "a.parquet", source_type="words"))
    parquet.write_table(pyarrow.table({"text": [b"x", b"caf\xe9"], "label": ["1", "2"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet row 2, column 'text': byte 0xe9 is not UTF-8"):
        pairs(files(tmp_path / "a.parquet"))


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "a.csv", "text,label\nx,1\n")
    assert pairs(files(Path("~/a.csv"))) == [("x", "1")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_tables_are_told_to_the_reader_of_words_a_line(tmp_path: Path, name: str) -> None:
    data = conll(write(tmp_path / name, '{"words": ["a"], "tags": ["X"]}\n'))
    for asked in (data.identity, data.check):
        with pytest.raises(DataError, match=rf"train: {name} has no word a line; .* own_data@task\.data=files"):
            asked()


def test_a_share_of_too_little(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\nx,1\nx,2\ny,1\n")
    with pytest.raises(
        DataError,
        match=r"train: a\.csv has 2 different sources, too few to cut test and valid out; .* task\.data\.test=",
    ):
        files(path, valid=None, test=None).read("train")
    data = files(path, valid=None)
    assert {len({x for x, _ in pairs(data, split)}) for split in ("train", "valid")} == {1}


CONLL = """-DOCSTART- -X- O

EU NNP B-ORG
rejects VBZ O

# NN O
Peter NNP B-PER
"""


def test_conll(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conll", CONLL.replace("\n", "\r\n"))
    assert pairs(conll(path)) == [(["EU", "rejects"], ["B-ORG", "O"]), (["#", "Peter"], ["O", "B-PER"])]
    assert pairs(conll(path, tag_column=1))[0] == (["EU", "rejects"], ["NNP", "VBZ"])


def test_conllu(tmp_path: Path) -> None:
    text = (
        "# sent_id = 1\n1-2\tdon't\t_\n1\tdo\tAUX\n2\tn't\tPART\n2.1\tgo\tVERB\n3\t1-2\tNUM\n\n"
        "# text = New York\n1\tNew York\tPROPN\n\n"
    )
    data = conll(write(tmp_path / "a.conllu", text), word_column=1, tag_column=2, separator="tab", comment="#")
    assert pairs(data) == [(["do", "n't", "1-2"], ["AUX", "PART", "NUM"]), (["New York"], ["PROPN"])]


@pytest.mark.parametrize(
    "content, changes, message",
    [
        ("a N\nb\n", {}, r"a\.conll line 2: 1 columns, the first line has 2 \(task\.data\.separator=space\)"),
        ("a N\n", {"tag_column": 2}, r"line 1: task\.data\.tag_column=2, but the line has 2 columns"),
        ("a N\n", {"word_column": -2, "tag_column": 0}, r"line 1: .* are the same of 2 columns"),
        ("a\tN\n\tN\n", {"separator": "tab"}, r"line 2: column 0 \(task\.data\.word_column\) is empty"),
        ("a N\n", {"separator": "tab"}, r"line 1: one column by task\.data\.separator=tab, where a word and its tag"),
        ("\n\n", {}, r"task\.data\.train: a\.conll has no sentences"),
        (b"a N\n\xff N\n", {}, r"a\.conll line 2: byte 0xff is not UTF-8"),
    ],
)
def test_broken_conll(tmp_path: Path, content: str | bytes, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        pairs(conll(write(tmp_path / "a.conll", content), **changes))


def test_conll_columns_must_differ(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tag_column: 0 is the word's column too"):
        conll(tmp_path / "a", tag_column=0)


@pytest.mark.data
def test_real_files_in_these_formats(data_cache: Path) -> None:
    ner = conll(data_cache / "wnut17" / "wnut17train.conll", tag_column=1, separator="tab", valid=None, test=None)
    assert sum(len(ner.read(split)) for split in SPLITS) == 3394
    intents = files(data_cache / "banking77" / "train.csv", columns={"source": "text", "target": "category"})
    assert len(pairs(intents)) == 10003
    assert len({y for _, y in pairs(intents)}) == 77


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_booleans_are_classes_by_their_names(tmp_path: Path, form: str) -> None:
    rows = [{"text": f"t{i}", "label": i % 2 == 0} for i in range(3)]
    path = tmp_path / f"data.{form}"
    if form == "parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif form == "jsonl":
        write(path, "\n".join(json.dumps(row) for row in rows))
    else:
        write(path, "text,label\nt0,True\nt1,False\nt2,True\n")
    assert pairs(files(path)) == [("t0", "True"), ("t1", "False"), ("t2", "True")]
    if form != "csv":
        with pytest.raises(DataError, match=r"True is not a finite number; true and false are classes: task\.data\."):
            pairs(files(path, target_type="number"))


def test_a_class_that_training_lacks_is_named_with_its_place_and_a_way_out(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", "text,label\na,good\nb,bad\n")
    test = write(tmp_path / "test.csv", "text,label\na,good\n\nb,god\n")
    task = Classification(
        data=files(train, valid=str(train), test=str(test)),
        tokenizer=Bytes(),
        max_length=8,
        readout="mean",
        label_smoothing=0.0,
        metrics=[Accuracy()],
    )
    message = (
        r"^test\.csv line 4 \(test\): class 'god' is not in the training split, whose classes are 'bad', 'good'; did"
        r" you mean 'good'\?\nCorrect the value, take the row out, or"
    )
    with pytest.raises(DataError, match=message):
        task.setup()


def test_examples_say_where_they_come_from(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conll", "\na O\nb O\n\n\nc O\n")
    assert [e.where for e in conll(path).read("train")] == ["a.conll line 2", "a.conll line 6"]
    path = write(tmp_path / "a.csv", "text,label\nx,1\ny,2\n")
    assert [e.place("valid", 0) for e in files(path).read("valid")] == ["a.csv line 2 (valid)", "a.csv line 3 (valid)"]


def test_examples_know_their_lines_in_the_file_when_a_share_of_it_is_cut_out(tmp_path: Path) -> None:
    csv = write(tmp_path / "a.csv", "text,label\n" + "".join(f'"t{i}\n",{i}\n\n' for i in range(10)))
    read = [example for split in SPLITS for example in files(csv, valid=None, test=None).read(split)]
    assert {e.line: e.target for e in read} == {2 + 3 * i: str(i) for i in range(10)}
    lines = write(tmp_path / "a.jsonl", '{"text": "x", "label": 1}\n\n{"text": "y", "label": 2}\n')
    assert [e.line for e in files(lines).read("train")] == [1, 3]
    parquet.write_table(pyarrow.table({"text": ["a", "b"], "label": ["1", "2"]}), tmp_path / "a.parquet")
    assert [e.line for e in files(tmp_path / "a.parquet").read("train")] == [1, 2]
    assert [e.line for e in conll(write(tmp_path / "a.conll", "\na O\nb O\n\nc O\n")).read("train")] == [2, 5]
