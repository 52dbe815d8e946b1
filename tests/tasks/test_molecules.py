"""GDSC and Davis: counts, splits that separate what they say, trivial rows of the sheet, what readers refuse."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqbench.build import build
from seqbench.composition.nodes import compose_node
from tasks.data import davis
from tasks.data.base import SPLITS, DataError
from tasks.data.davis import Davis
from tasks.data.gdsc_deepcdr import GDSC, others, read_table
from tasks.data.smiles import tokens
from tasks.data.unseen import Unseen, places
from tasks.regression import Regression


@pytest.fixture
def _cache(data_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQBENCH_DATA", str(data_cache))


def test_tokens_are_atoms_bonds_and_rings() -> None:
    assert tokens("CC(=O)Cl") == ["C", "C", "(", "=", "O", ")", "Cl"]
    assert tokens("[nH+]1%12Br/C") == ["[nH+]", "1", "%12", "Br", "/", "C"]
    with pytest.raises(DataError, match="'C C' is no SMILES"):
        tokens("C C")


@pytest.mark.parametrize("unseen", ["neither", "left", "right", "both"])
def test_splits_separate_what_they_say(unseen: Unseen) -> None:
    generator = np.random.default_rng(1)
    left = [f"m{i}" for i in generator.integers(40, size=3000)]
    right = [f"c{i}" for i in generator.integers(30, size=3000)]
    tested = []
    for fold in range(5):
        rows = places(left, right, unseen, fold)
        assert all((np.diff(found) > 0).all() for found in rows.values())
        assert rows["train"].size > rows["test"].size > rows["valid"].size > 0
        for name, parts in (("left", left), ("right", right)):
            kinds = [{parts[row] for row in rows[split]} for split in ("train", "valid", "test")]
            apart = unseen in (name, "both")
            assert all(bool(kinds[a] & kinds[b]) != apart for a, b in ((0, 1), (0, 2), (1, 2))), name
        pairs = [{(left[row], right[row]) for row in found} for found in rows.values()]
        assert not any(pairs[a] & pairs[b] for a, b in ((0, 1), (0, 2), (1, 2)))  # what is the same is together
        tested += rows["test"].tolist()
        assert unseen == "both" or sum(map(len, rows.values())) == 3000
    assert len(set(tested)) == len(tested)
    assert unseen == "both" or len(tested) == 3000


def test_others_are_never_one_s_own() -> None:
    found = others(561)
    assert sorted(found) == list(range(561))
    assert (found != np.arange(561)).all()


def test_files_that_do_not_go_together(tmp_path: Path) -> None:
    files = [tmp_path / name for name in "abcd"]
    files[0].write_text('"","L1"\nGDSC:7,1.5\n')
    files[1].write_text("drug_id,a,b,c,d,PubCHEM\n7,a,b,c,d,99\n")
    files[2].write_text("99\tCCO\n")
    files[3].write_text(",G1\nL1,0.5\n")
    with pytest.raises(DataError, match="expected 808 finite numbers"):
        read_table(*files)
    files[3].write_text(",G1\nL1,x\n")
    with pytest.raises(DataError, match="could not convert string to float"):
        read_table(*files)


def task_of(name: str, **data: Any) -> Regression:
    node = compose_node("task", name)
    task = build(node | {"data": node["data"] | data}, "task", ["tasks"])
    assert isinstance(task, Regression)
    task.setup()
    return task


@pytest.mark.data
@pytest.mark.usefixtures("_cache")
class TestRead:
    def test_the_sheet_s_facts(self) -> None:
        read = [e for split in SPLITS for e in GDSC(unseen="neither", fold=0, profile="own").read(split)]
        y = np.array([e.target for e in read])
        assert (len(y), len({tuple(e.source) for e in read}), len({e.streams["context"].tobytes() for e in read})) == (
            107446,
            223,
            561,
        )
        assert (y.min(), y.max(), y.mean(), y.std()) == pytest.approx((-9.847, 12.900, 2.126, 2.720), abs=5e-4)
        assert np.ptp(y) == pytest.approx(22.747, abs=5e-4)
        assert (max(len(e.source) for e in read), len({t for e in read for t in e.source})) == (173, 36)
        assert all(e.streams["context"].shape == (1, 808) for e in read[:9])

    def test_profiles_are_standardised_by_the_lines_of_training(self) -> None:
        for profile in ("own", "shuffled"):
            data = GDSC(unseen="lines", fold=1, profile=profile)
            train, test = (
                np.stack(list({id(e.streams["context"]): e.streams["context"][0] for e in data.read(split)}.values()))
                for split in ("train", "test")
            )
            assert np.abs(train.mean(0)).max() < 1e-5
            assert np.allclose(train.std(0)[train.std(0) > 0], 1.0, atol=1e-4)
            assert np.abs(test.mean(0)).max() > 0.1
        own, shuffled = (
            [e.streams["context"][0] for e in GDSC(unseen="neither", fold=0, profile=p).read("test")]
            for p in ("own", "shuffled")
        )
        assert not any(np.array_equal(a, b) for a, b in zip(own[::500], shuffled[::500], strict=True))
        assert len({a.tobytes() for a in own}) == len({a.tobytes() for a in shuffled}) == 561

    def test_a_pair_has_its_own_compound_line_and_number(self) -> None:
        """Found again in the files, read here by other means; all lines train, so their scale is that of all."""
        data = GDSC(unseen="neither", fold=0, profile="own")
        files = data.located()
        with files["GDSC_IC50.csv"].open(encoding="utf-8-sig") as file:
            values = {row.pop(""): row for row in csv.DictReader(file)}
        with files["drug_list.csv"].open(encoding="utf-8-sig") as file:
            drugs = [(row["drug_id"], row["PubCHEM"]) for row in csv.DictReader(file)]
        known = dict(line.split("\t") for line in files["223drugs_pubchem_smiles.txt"].read_text().splitlines())
        with files["methylation_561x808.csv"].open(encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))[1:]
        profile_KG = np.array([row[1:] for row in rows], dtype=float)
        mean_G, std_G = profile_KG.mean(0), profile_KG.std(0)
        for example in data.read("test")[::700]:
            raw_G = example.streams["context"][0] * std_G + mean_G
            line = rows[int(np.abs(profile_KG - raw_G).sum(1).argmin())][0]
            ids = [drug for drug, pubchem in drugs if known.get(pubchem) == "".join(example.source)]
            assert f"{example.target:.6f}" in {
                f"{float(values[f'GDSC:{i}'][line]):.6f}" for i in ids if values[f"GDSC:{i}"][line] != "NA"
            }

    @pytest.mark.slow
    def test_unseen_molecules_and_lines_are_in_no_other_split(self) -> None:
        for unseen in ("molecules", "lines", "both"):
            data = GDSC(unseen=unseen, fold=3, profile="own")
            read = [data.read(split) for split in SPLITS]
            molecules = [{"".join(e.source) for e in rows} for rows in read]
            lines = [{e.streams["context"].tobytes() for e in rows} for rows in read]
            for parts, side in ((molecules, "molecules"), (lines, "lines")):
                apart = not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
                assert apart == (unseen in (side, "both"))

    @pytest.mark.parametrize(
        ("unseen", "sheet"),
        [
            ("neither", {"majority": 2.676, "source_mean": 1.433, "biases": 1.253}),
            ("lines", {"majority": 2.741, "source_mean": 1.501, "biases": 1.505}),
        ],
    )
    def test_trivial_rows(self, unseen: str, sheet: dict[str, float]) -> None:
        """The sheet's are of other splits, drawn once: equal to 3 %. Unseen molecules spread by 10 % and more."""
        task = task_of("gdsc_deepcdr", unseen=unseen)
        found = {rule: task.score("test", task.trivial(rule, "test", 0))["rmse"].value for rule in sheet}
        assert found == pytest.approx(sheet, rel=0.03)
        train, test = ([e.target for e in task.examples[split]] for split in ("train", "test"))
        assert found["majority"] == pytest.approx(np.sqrt(np.mean((np.array(test) - np.mean(train)) ** 2)))

    def test_davis(self) -> None:
        data = Davis(unseen="neither", fold=4)
        read = {split: data.read(split) for split in SPLITS}
        assert [len(read[split]) for split in SPLITS] == [20037, 5009, 5010]
        train, test = (np.array([e.target for e in read[split]]) for split in ("train", "test"))
        assert ((test - train.mean()) ** 2).mean() == pytest.approx(0.802, abs=1e-3)  # as the card has it
        every = [e for split in SPLITS for e in read[split]]
        assert max(len(e.streams["context"]) for e in every) == 2549
        assert np.mean([e.target == 5 for e in every]) == pytest.approx(0.696, abs=5e-4)
        assert max(e.target for e in every) == pytest.approx(10.8, abs=0.01)
        files = data.located()
        smiles, proteins = (
            list(json.loads(files[name].read_text()).values()) for name in ("ligands_can.txt", "proteins.txt")
        )
        kd_MP = np.loadtxt(files[davis.VALUES])
        for e in every[::600]:
            places = [j for j, protein in enumerate(proteins) if protein == "".join(e.streams["context"])]
            told = [9 - np.log10(kd_MP[smiles.index("".join(e.source)), j]) for j in places]
            assert min(abs(e.target - one) for one in told) < 1e-9
        unseen = Davis(unseen="proteins", fold=0)
        sequences = [{"".join(e.streams["context"]) for e in unseen.read(split)} for split in ("train", "test")]
        assert not sequences[0] & sequences[1]
        assert data.overlap
        assert not unseen.overlap

    def test_a_matrix_of_another_size(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        data = Davis(unseen="both", fold=0)
        files = data.located()
        (tmp_path / "values").write_text("1 10\n")
        monkeypatch.setattr(Davis, "located", lambda _: files | {davis.VALUES: tmp_path / "values"})
        with pytest.raises(DataError, match=r"68 molecules and 442 proteins for \(1, 2\) values"):
            data.read("train")
