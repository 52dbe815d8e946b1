"""What a data set gives away: rows shared across splits, and what is scored without reading any order."""
# N rows of a split

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pydantic
from pydantic import BaseModel, ConfigDict, Field

from seqbench.errors import RecordError
from seqbench.record import SplitFacts
from seqbench.records.provenance import canonical
from seqbench.records.store import reason_of, write_atomic

if TYPE_CHECKING:  # a board reads warnings, and needs no torch for it
    from tasks.base import Task
    from tasks.data.base import Example

FOLDER = "leakage"  # beside the records: results/leakage/<key>.json
NEAR = 0.8  # Jaccard similarity of shingles from which two sources are near duplicates
SHINGLE, LEAST = 5, 8  # characters of a shingle (items: 3), and shingles that a source must have to be compared
TEST_ROWS, TRAIN_ROWS = 1000, 50_000  # samples that near duplicates and baselines are found on
GAIN = 0.05  # by how much a baseline beats the constant to be worth a warning (accuracy or share of variance)
MANY = 2000  # classes above which the constant alone is tried: a linear model of 20,000 words would take hours
SOLVED, SKEWED = 0.9, 0.8  # bag of words, constant: accuracy from which a warning stands


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Shared(_Part):
    """Rows of one split whose source stands in another one, too; or earlier in the same, where both are one."""

    split: str
    within: str
    rows: int = Field(description="of `split`, with the same source, to the letter")
    other_target: int = Field(description="of them, with a target that no such row of `within` has")
    near: int = Field(description="of the rows compared, near duplicates, exact ones left out")
    compared: int = Field(description="rows that near duplicates were looked for in")
    of: int = Field(description="rows of `split`")


class Baseline(_Part):
    """A score on the test split of what reads less than the sequence."""

    name: Literal["constant", "length", "bag_of_words"]
    value: float
    measure: Literal["accuracy", "r2"]


class Leakage(_Part):
    """The report of a data set as a task splits it."""

    schema_version: Literal[1] = 1
    key: str
    task: str
    shared: list[Shared]
    baselines: list[Baseline]
    prior: dict[str, float] = Field(description="share of each class in train, the ten most frequent")
    warnings: list[str]


def report(task: Task, name: str, splits: Mapping[str, SplitFacts]) -> Leakage:
    """The report of a task that is set up; a few seconds for some ten thousand rows."""
    read = {split: [examples[i] for i in range(len(examples))] for split, examples in task.examples.items()}
    pairs = [("valid", "train"), ("test", "train"), ("test", "valid"), ("train", "train"), ("test", "test")]
    beside = [name for name, stream in task.data.streams.items() if stream.length is not None]
    shared = [_shared(read[a], read[b], a, b, beside) for a, b in pairs]
    baselines, prior = _baselines(read["train"], read["test"], named=task.names_a_class)
    overlap = task.data.overlap
    return Leakage(
        key=key_of(splits),
        task=name,
        shared=shared,
        baselines=baselines,
        prior=prior,
        warnings=[*_shared_warnings(shared, overlap), *_baseline_warnings(baselines)],
    )


# -- kept beside the records -------------------------------------------------------------------------------------------
def key_of(splits: Mapping[str, SplitFacts]) -> str:
    """16 hex digits of the splits' checksums: the same data, however it is named, has one report."""
    text = "\n".join(f"{split} {splits[split].sha256}" for split in sorted(splits))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def path_of(results: Path, key: str) -> Path:
    """Where a report lies."""
    return results / FOLDER / f"{key}.json"


def write(results: Path, found: Leakage) -> Path:
    """Keep a report. Raises RecordError where it can't be written."""
    path = path_of(results, found.key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, (found.model_dump_json(indent=2) + "\n").encode())
    except OSError as error:
        raise RecordError(f"results: {path} cannot be written ({reason_of(error)}); choose another folder") from None
    return path


def read_report(results: Path, splits: Mapping[str, SplitFacts]) -> Leakage | None:
    """The kept report of these splits; None where there is none. Raises RecordError for one that can't be read."""
    path = path_of(results, key_of(splits))
    try:
        return Leakage.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({reason_of(error)})") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise RecordError(f"{path}: {first['msg']}; delete it and run scripts/leakage.py again") from None


def warnings_for(results: Path, splits: Mapping[str, SplitFacts]) -> list[str]:
    """What a board should say under a column with these splits (Record.splits), a sentence each.

    From the kept report, if there is one; else what each run counts for itself: rows that stand in train, too.
    Raises RecordError for a report that can't be read.
    """
    found = read_report(results, splits)
    if found is not None:
        return found.warnings
    return [
        _stand_in(facts.in_train, facts.examples, split, "train")
        for split, facts in splits.items()
        if split != "train" and facts.in_train
    ]


# -- duplicates --------------------------------------------------------------------------------------------------------
def _shared(one: Sequence[Example], other: Sequence[Example], split: str, within: str, beside: Sequence[str]) -> Shared:
    targets: dict[str, set[str]] = {}
    rows = conflicts = 0
    same = split == within
    if not same:
        for example in other:
            targets.setdefault(canonical(_input(example)), set()).add(canonical(example.target))
    unseen = []
    for i, example in enumerate(one):
        source, target = canonical(_input(example)), canonical(example.target)
        if source in targets:
            rows += 1
            conflicts += target not in targets[source]
        else:
            unseen.append(i)
        if same:
            targets.setdefault(source, set()).add(target)
    near, compared = (0, 0) if same else _near([one[i] for i in unseen], other, beside)
    return Shared(
        split=split, within=within, rows=rows, other_target=conflicts, near=near, compared=compared, of=len(one)
    )


def _input(example: Example) -> Any:
    """All that is read of an example."""
    return [example.source, dict(example.streams)]


def _near(one: Sequence[Example], other: Sequence[Example], beside: Sequence[str] = ()) -> tuple[int, int]:
    """Near duplicates among a sample of `one`, and its size; (0, 0) for sources without words or items.

    The streams `beside` a source (a protein, a cell line) are another part of a pair: near are sources with equal ones.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    from tasks.loading import sample_rows

    few = [one[i] for i in sample_rows(len(one), TEST_ROWS).tolist()]
    many = [other[i] for i in sample_rows(len(other), TRAIN_ROWS).tolist()]
    given = [(pieces, example) for example in few if len(pieces := _shingles(example.source)) >= LEAST]
    against = [(pieces, example) for example in many if len(pieces := _shingles(example.source)) >= LEAST]
    if not given or not against:
        return 0, 0
    numbers: dict[str, int] = {}
    of_a, of_b = (
        np.array([numbers.setdefault(canonical([e.streams[name] for name in beside]), len(numbers)) for _, e in part])
        for part in (given, against)
    )
    hashing = HashingVectorizer(analyzer=_same, binary=True, norm=None, alternate_sign=False)
    a, b = (hashing.transform(pieces for pieces, _ in part) for part in (given, against))
    sizes_a, sizes_b = np.asarray(a.sum(1)).ravel(), np.asarray(b.sum(1)).ravel()
    transposed, near = b.T.tocsc(), 0
    for start in range(0, a.shape[0], 128):
        both = (a[start : start + 128] @ transposed).tocoo()
        union = sizes_a[start + both.row] + sizes_b[both.col] - both.data
        alike = (both.data / union >= NEAR) & (of_a[start + both.row] == of_b[both.col])
        near += len(np.unique(both.row[alike]))
    return near, len(given)


def _same(value: Any) -> Any:
    return value


def _shingles(source: Any) -> set[str]:
    """What near duplicates share: runs of characters of a text, folded; of items, runs of three. {} for channels."""
    if isinstance(source, str):
        text = " ".join(source.casefold().split())
        return {text[i : i + SHINGLE] for i in range(len(text) - SHINGLE + 1)}
    if isinstance(source, np.ndarray) and source.dtype.kind in "iu" and source.ndim == 1:
        items = [str(item) for item in source.tolist()]
        return {" ".join(items[i : i + 3]) for i in range(len(items) - 2)}
    if isinstance(source, list) and all(isinstance(item, str) for item in source):
        return _shingles(" ".join(source))
    if isinstance(source, list | tuple):
        return {f"{i} {piece}" for i, part in enumerate(source) for piece in _shingles(part)}
    return set()


# -- baselines ---------------------------------------------------------------------------------------------------------
def _baselines(train: list[Example], test: list[Example], *, named: bool) -> tuple[list[Baseline], dict[str, float]]:
    """Constant, length alone, bag of words: for one class, item or number a row, and [] for other targets.

    Text is a class where the task says that a prediction is one (`named`), and no description or translation.
    """
    from tasks.loading import sample_rows

    few = [test[i] for i in sample_rows(len(test), 10 * TEST_ROWS).tolist()]
    many = [train[i] for i in sample_rows(len(train), TRAIN_ROWS // 2).tolist()]
    kinds = {type(example.target) for example in many}
    if kinds <= ({str, int} if named else {int}):
        counts = Counter(example.target for example in train)
        prior = {str(name): number / len(train) for name, number in counts.most_common(10)}
        return _scored(many, few, classes=True), prior
    return (_scored(many, few, classes=False), {}) if kinds <= {float} else ([], {})


def _scored(train: list[Example], test: list[Example], *, classes: bool) -> list[Baseline]:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import KBinsDiscretizer

    y, z = [e.target for e in train], [e.target for e in test]

    def model() -> Any:
        return LogisticRegression(max_iter=1000, C=1.0) if classes else Ridge(alpha=1.0)

    measure: Literal["accuracy", "r2"] = "accuracy" if classes else "r2"
    constant = Counter(y).most_common(1)[0][0] if classes else float(np.mean(y))
    found = [Baseline(name="constant", value=_measured([constant] * len(z), z, classes), measure=measure)]
    if classes and len(set(y)) > MANY:  # items of a catalogue
        return found
    a, b = _lengths(train), _lengths(test)
    vary = np.ptp(a, axis=0) > 0
    a, b = a[:, vary], b[:, vary]
    if vary.any() and len(set(y)) > 1:
        bins = KBinsDiscretizer(n_bins=20, strategy="uniform", encode="onehot")
        fitted = make_pipeline(bins, model()).fit(np.log(a), y)
        value = _measured(fitted.predict(np.log(b)), z, classes)
        found.append(Baseline(name="length", value=value, measure=measure))
    bags = [_words(e.source) for e in train]
    if any(bags) and len(set(y)) > 1:
        counting = CountVectorizer(analyzer=_same, max_features=20_000, binary=True)
        fitted = make_pipeline(counting, model()).fit(bags, y)
        value = _measured(fitted.predict([_words(e.source) for e in test]), z, classes)
        found.append(Baseline(name="bag_of_words", value=value, measure=measure))
    return found


def _measured(predicted: Any, targets: Sequence[Any], classes: bool) -> float:
    if classes:
        return float(np.mean([p == t for p, t in zip(predicted, targets, strict=True)]))
    truth = np.asarray(targets, dtype=np.float64)
    spread = float(((truth - truth.mean()) ** 2).sum())
    return 1 - float(((truth - np.asarray(predicted)) ** 2).sum()) / spread if spread else math.nan


def _lengths(examples: Sequence[Example]) -> np.ndarray[Any, Any]:
    """(N, parts) int, one more than each length: characters of a text, words of a list, positions of an array."""
    parts = [e.source if isinstance(e.source, tuple) else (e.source,) for e in examples]
    return np.array([[1 + (len(p) if hasattr(p, "__len__") else 0) for p in row] for row in parts], dtype=np.float64)


def _words(source: Any) -> list[str]:
    """Words or items, those of a pair marked by their side; [] for channels."""
    if isinstance(source, str):
        return source.casefold().split()
    if isinstance(source, np.ndarray):
        return [str(i) for i in source.tolist()] if source.dtype.kind in "iu" and source.ndim == 1 else []
    if isinstance(source, list) and all(isinstance(item, str) for item in source):
        return [item.casefold() for item in source]
    if isinstance(source, list | tuple):
        return [f"{i} {word}" for i, part in enumerate(source) for word in _words(part)]
    return []


# -- warnings ----------------------------------------------------------------------------------------------------------
def _shared_warnings(shared: Sequence[Shared], overlap: str) -> list[str]:
    told = []
    for found in shared:
        if found.split != found.within and found.rows:
            told.append(_stand_in(found.rows, found.of, found.split, found.within))
        if found.split == found.within and found.rows:
            told.append(f"{found.rows:,} of {found.of:,} rows of {found.split} come more than once")
        if found.other_target:
            told.append(f"{found.other_target:,} rows of {found.split} stand in {found.within} with another target")
        if found.near:
            told.append(
                f"{found.near:,} of {found.compared:,} rows of {found.split} compared are near duplicates"
                f" (similarity {NEAR} and more) of rows of {found.within}"
            )
    return [*told, *([f"The data set says: {overlap}"] if overlap and told else [])]


def _stand_in(rows: int | None, of: int, split: str, within: str) -> str:
    share = 100 * (rows or 0) / max(1, of)
    short = f"{share:.0f}" if share >= 10 else f"{share:.2g}"  # .2g writes 1e+02 for 99.6
    return f"{rows or 0:,} of {of:,} rows of {split} ({short} %) stand in {within}, too"


def _baseline_warnings(baselines: Sequence[Baseline]) -> list[str]:
    by = {b.name: b.value for b in baselines}
    measure = baselines[0].measure if baselines else ""
    constant, told = by.get("constant", math.nan), []
    if measure == "accuracy" and constant >= SKEWED:
        told.append(f"the most frequent class alone has accuracy {constant:.3f}")
    if by.get("length", -math.inf) - constant >= GAIN:
        told.append(f"length alone has {measure} {by['length']:.3f}, a constant {constant:.3f}")
    if by.get("bag_of_words", -math.inf) >= SOLVED:
        told.append(f"a bag of words alone has {measure} {by['bag_of_words']:.3f}: order hardly matters")
    return told
