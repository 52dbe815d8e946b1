"""Skeletons: place, size and lost joints; pickles that name more than arrays; fewer labels; the published splits."""

from __future__ import annotations

import copyreg
import itertools
import math
import os
import pickle
import resource
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from encoders.base import Graph, InputSpec
from tasks.data.base import SPLITS, DataError, DataSet, Example, FileFact
from tasks.data.fewer import Fewer
from tasks.data.jhmdb_pose import SKELETON, JHMDBPose, read_clips, validating
from tasks.data.msr_action3d import SKELETON as KINECT
from tasks.data.msr_action3d import MSRAction3D, read_recording
from tasks.data.numpy_pickle import read_numpy_pickle
from tasks.data.pinned import card
from tasks.data.skeletons import filled, normalised


# -- place and size --------------------------------------------------------------------------------------------------
def test_a_clip_is_about_its_centre_in_units_of_its_bone() -> None:
    joints = np.random.default_rng(0).normal(3, 2, size=(7, 4, 2))
    found = normalised(joints, centre=(1, 2), length=(0, 3)).reshape(7, 4, 2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, [1, 2]].mean((0, 1)), 0, atol=1e-6)
    bones = [math.dist(frame[0], frame[3]) for frame in found]
    assert sum(bones) / 7 == pytest.approx(1, abs=1e-6)
    again = normalised(5 * joints + 11, centre=(1, 2), length=(0, 3))  # whatever the camera
    np.testing.assert_allclose(again, found.reshape(7, 8), atol=1e-5)
    moved = joints + np.arange(7)[:, None, None]  # one shift for all frames: what moves still does
    assert np.ptp(normalised(moved, centre=(1,), length=(0, 3))[:, 2]) > 1
    with pytest.raises(ValueError, match="lie in one place"):
        normalised(np.zeros((3, 4, 2)), centre=(1,), length=(0, 3))


def test_lost_joints_lie_on_the_line_between() -> None:
    joints = np.zeros((5, 2, 1))
    joints[:, 0, 0] = [9, 1, 9, 9, 4]
    joints[:, 1, 0] = [1, 2, 3, 4, 5]
    lost = np.array([[1, 0], [0, 0], [1, 0], [1, 0], [0, 1]], dtype=bool)
    found = filled(joints, lost)
    np.testing.assert_allclose(found[:, 0, 0], [1, 1, 2, 3, 4])
    np.testing.assert_allclose(found[:, 1, 0], [1, 2, 3, 4, 4])
    with pytest.raises(ValueError, match="joint 1 is lost in every frame"):
        filled(joints, np.array([[0, 1]] * 5, dtype=bool))


@pytest.mark.parametrize("graph", [SKELETON, KINECT])
def test_a_skeleton_is_a_tree_and_its_parts_hold_each_joint_once(graph: Graph) -> None:
    a = graph.adjacency().numpy()
    assert np.array_equal(a, a.T)
    assert not a.diagonal().any()
    assert a.sum() == 2 * (graph.nodes - 1)
    assert (np.linalg.matrix_power(a + np.eye(len(a)), graph.nodes) > 0).all()  # connected
    assert sorted(itertools.chain(*graph.parts)) == list(range(graph.nodes))
    for part in (graph.parts[0], *graph.parts[2:]):  # the torso hangs together by the neck, which is the head's
        reach = np.linalg.matrix_power((a + np.eye(len(a)))[np.ix_(part, part)], graph.nodes)
        assert (reach > 0).all()


def test_bones_of_jhmdb_are_the_sheet_s() -> None:
    bones = "0-1 0-2 0-3 0-4 3-7 7-11 4-8 8-12 1-5 1-6 5-9 9-13 6-10 10-14"
    assert sorted(SKELETON.edges) == sorted(tuple(map(int, bone.split("-"))) for bone in bones.split())


def test_which_clips_validate_is_told_by_their_poses_alone() -> None:
    generator = np.random.default_rng(0)
    clips = [(generator.normal(size=(5, 15, 2)), action) for action in "ab" for _ in range(20)]
    chosen = {clips[row][0].tobytes() for row in validating(clips)}
    assert len(chosen) == 6
    turned = [clips[row] for row in generator.permutation(40)]
    assert {turned[row][0].tobytes() for row in validating(turned)} == chosen
    fewer = [clip for row, clip in enumerate(clips) if row != min(validating(clips))]
    assert len({fewer[row][0].tobytes() for row in validating(fewer)} & chosen) == 5


@pytest.mark.parametrize("edges", [((0, 3),), ((1, 1),), ((0, 1), (1, 0)), ((-1, 0),)])
def test_edges_that_are_none(edges: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match="edges are pairs"):
        Graph(nodes=3, width=2, edges=edges)


def test_channels_are_those_of_the_nodes() -> None:
    graph = Graph(nodes=3, width=2, edges=((0, 1),))
    assert InputSpec(max_length=4, channels=6, graph=graph).graph is graph
    with pytest.raises(ValueError, match="5 channels for 3 nodes of 2"):
        InputSpec(max_length=4, channels=5, graph=graph)


# -- pickles ---------------------------------------------------------------------------------------------------------
class Evil:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


def test_arrays_are_read_and_nothing_of_the_file_is_run(tmp_path: Path) -> None:
    file, made = tmp_path / "a.pkl", tmp_path / "made"
    array = np.arange(6.0).reshape(3, 2)
    for protocol in (3, 4):
        file.write_bytes(pickle.dumps({"pose": [array], "label": ["a"]}, protocol=protocol))
        assert np.array_equal(read_numpy_pickle(file, name="set")["pose"][0], array)
    for content in (Evil(str(made)), [array, {"x": Evil(str(made))}]):
        file.write_bytes(pickle.dumps(content))
        with pytest.raises(DataError, match=r"set: a\.pkl can't be read: it names posix\.mkdir"):
            read_numpy_pickle(file, name="set")
    assert not made.exists()
    for builtin in (b"cbuiltins\neval\n(S'1'\ntR.", b"cnumpy\nload\n.", b"cnumpy.core.multiarray\nfromfile\n."):
        file.write_bytes(builtin)
        with pytest.raises(DataError, match="it names"):
            read_numpy_pickle(file, name="set")
    for broken in (b"", b"not a pickle", pickle.dumps([array])[:40]):
        file.write_bytes(broken)
        with pytest.raises(DataError, match=r"a\.pkl can't be read"):
            read_numpy_pickle(file, name="set")


class Told:
    """A part of an array's pickle with a state of the attacker's."""

    def __init__(self, *parts: object) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple[object, ...]:
        return self.parts


def array_of(kind: object, shape: tuple[int, ...], content: object) -> Told:
    return Told(np.zeros(1).__reduce__()[0], (np.ndarray, (0,), b"b"), (1, shape, kind, False, content))


def dtype_of(name: str, *state: object) -> Told:
    return Told(np.dtype, (name, False, True), (3, *state))


@pytest.mark.parametrize(
    "content, message",
    [
        # bytes for pointers: numpy's own reader takes this one, and the process dies where an element is read
        (array_of(dtype_of("O8", "|", None, None, None, -1, -1, 0), (1,), b"A" * 8), "an array is of 'O8'"),
        # a field a terabyte behind its record: the same
        (
            array_of(dtype_of("V8", "|", None, ("a",), {"a": (np.dtype("f8"), 1 << 40)}, 8, 1, 16), (1,), b"A" * 8),
            "'V8'",
        ),
        (array_of(np.dtype("f8"), (2,), b"A" * 8), r"an array of \(2,\) does not fill its bytes"),
        (array_of(np.dtype("f8"), (-1, -1), b"A" * 8), "an array without a shape"),
        (array_of("f8", (1,), b"A" * 8), "an array without a shape or a kind"),
        (Told(np.ndarray, ((1 << 40,), "f8")), "can't be read"),  # 8 terabytes out of 60 bytes
        ([np.dtype("f8")], "it holds more than arrays of numbers"),
        ([np.ndarray], "it holds more than arrays of numbers"),
        (np.zeros(2, dtype=[("a", "f8")]), "only numbers are read"),
        (np.array(["a"]), "only numbers are read"),
    ],
)
def test_arrays_that_would_harm_are_refused(content: object, message: str, tmp_path: Path) -> None:
    file = tmp_path / "a.pkl"
    file.write_bytes(pickle.dumps(content, protocol=3))
    with pytest.raises(DataError, match=message):
        read_numpy_pickle(file, name="set")


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02]r\xff\xff\xff\x0f.",  # memo place 268,435,455: 4 GB by pickle's own reader
        b"\x80\x02]p99999999\n.",
        b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"x.",  # bytes that are not there
        b"\x80\x04\x8e" + (1 << 63).to_bytes(8, "little") + b"x.",
        b"\x80\x04\x95" + (1 << 40).to_bytes(8, "little") + b"N.",
        b"\x80\x02\x82\x01.",  # an extension code, which asks no find_class
        b"]" * 20_000 + b"a" * 19_999 + b".",  # lists within lists
    ],
)
def test_a_few_bytes_take_no_memory(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.pkl"
    file.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"a\.pkl can't be read"):
        read_numpy_pickle(file, name="set")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_extension_codes_are_refused_though_a_process_knows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A known one is taken from a cache, without find_class."""
    monkeypatch.setitem(copyreg._extension_cache, 1, os.mkdir)  # type: ignore[attr-defined]
    file, made = tmp_path / "a.pkl", tmp_path / "made"
    text = str(made).encode()
    file.write_bytes(b"\x80\x02\x82\x01X" + len(text).to_bytes(4, "little") + text + b"\x85R.")
    with pytest.raises(DataError, match="it uses extension codes"):
        read_numpy_pickle(file, name="set")
    assert not made.exists()


def test_arrays_come_as_they_were(tmp_path: Path) -> None:
    """All kinds of numbers, both orders of bytes and axes, one array at two places, texts of Python 2."""
    file, generator = tmp_path / "a.pkl", np.random.default_rng(0)
    kinds = ("<f4", ">f8", "<f2", ">i4", "|u1", "<i8", "|b1", "<c16")
    arrays = [(9 * generator.normal(size=(3, 2, 4))).astype(kind) for kind in kinds]
    arrays += [np.asfortranarray(arrays[0]), np.zeros((0, 3)), np.array(2.5)]
    file.write_bytes(pickle.dumps({"x": arrays, "y": (arrays[1], [arrays[1], 7, None, "z"])}, protocol=4))
    found = read_numpy_pickle(file, name="set")
    for a, b in zip(arrays, found["x"], strict=True):
        assert type(b) is np.ndarray
        assert (a.dtype, a.shape, a.strides, b.flags.writeable) == (b.dtype, b.shape, b.strides, True)
        assert np.array_equal(a, b)
    assert found["y"][0] is found["y"][1][0] is found["x"][1]
    assert found["y"][1][1:] == [7, None, "z"]
    # {'s': array([1.0, -2.0])} of Python 2, protocol 2: bytes are texts there
    head = b"\x80\x02}U\x01scnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85"
    kind = b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x10"
    file.write_bytes(head + kind + np.array([1.0, -2.0]).tobytes() + b"tbs.")
    assert read_numpy_pickle(file, name="set")["s"].tolist() == [1.0, -2.0]


@pytest.mark.parametrize(
    "content, message",
    [
        ([1, 2], "no mapping with pose and label"),
        ({"pose": [np.zeros((3, 15, 2))], "label": []}, "not two lists of one length"),
        ({"pose": [np.zeros((3, 14, 2))], "label": ["a"]}, r"clip 0: a pose is floats of \(frames, 15, 2\)"),
        ({"pose": [np.zeros((3, 15, 2), dtype=int)], "label": ["a"]}, "clip 0: a pose is floats"),
        (
            {"pose": [np.zeros((3, 15, 2), dtype=object)], "label": ["a"]},
            "an array is of 'O8', and only numbers are read",
        ),
        ({"pose": [np.full((3, 15, 2), np.nan)], "label": ["a"]}, "clip 0: needs finite numbers"),
        ({"pose": [np.ones((3, 15, 2))], "label": [4]}, "clip 0: needs finite numbers and the name"),
        ({"pose": [np.ones((3, 15, 2))], "label": ["a"]}, "clip 0: joints 0 and 1 lie in one place"),
    ],
)
def test_other_clips_are_refused(content: object, message: str, tmp_path: Path) -> None:
    file = tmp_path / "a.pkl"
    file.write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(DataError, match=message):
        read_clips(file)


@pytest.mark.parametrize("text", ["1 2 3 1\n" * 19, "", "a b c d\n", "nan 1 1 1\n" * 20, "0 0 0 1\n" * 20])
def test_other_recordings_are_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a02_s01_e01_skeleton3D.txt"
    file.write_text(text)
    with pytest.raises(DataError, match=r"msr-action3d-as1: a02_s01_e01_skeleton3D\.txt"):
        read_recording(file, "bend")


# -- fewer labels ----------------------------------------------------------------------------------------------------
class Given(DataSet):
    modality, version, overlap, independent_valid = "text", 7, "all the same", False
    graph = SKELETON

    def __init__(self, targets: Sequence[object]) -> None:
        self.targets = targets

    def identity(self) -> list[FileFact]:
        return [FileFact(name="a", url="b", sha256="0" * 64)]

    def check(self) -> None:
        raise DataError("asked")

    def read(self, split: str) -> list[Example]:
        return [Example(source=f"{split} {row}", target=target) for row, target in enumerate(self.targets)]


def left(data: Fewer) -> list[str]:
    return [example.source for example in data.read("train")]


def test_a_share_of_each_class_is_left_and_smaller_ones_are_in_larger() -> None:
    inner = Given(["a"] * 40 + ["b"] * 10 + ["c"])
    kept = {share: left(Fewer(data=inner, share=share, draw=0)) for share in (0.1, 0.25, 0.5, 1.0)}
    classes = {f"train {row}": target for row, target in enumerate(inner.targets)}
    counts = {share: Counter(classes[source] for source in sources) for share, sources in kept.items()}
    assert counts[0.1] == {"a": 4, "b": 1, "c": 1}
    assert counts[0.25] == {"a": 10, "b": 2, "c": 1}
    assert kept[1.0] == [f"train {row}" for row in range(51)]
    for fewer, more in itertools.pairwise(kept.values()):
        assert fewer == [source for source in more if source in fewer]  # a part of it, in its order
    assert kept[0.1] != left(Fewer(data=inner, share=0.1, draw=1))


def test_the_rest_is_the_others() -> None:
    inner = Given([0.5, 1.5, 2.5, 3.5])
    data = Fewer(data=inner, share=0.5, draw=3)
    assert len(data.read("train")) == 2  # of numbers, of all together
    for split in SPLITS[1:]:
        assert data.read(split) == inner.read(split)
    assert data.identity() == inner.identity()
    facts = (data.version, data.overlap, data.independent_valid, data.modality, data.graph)
    assert facts == (7, "all the same", False, "text", SKELETON)
    with pytest.raises(DataError, match="asked"):
        data.check()


# -- the sets --------------------------------------------------------------------------------------------------------
@pytest.fixture
def _cache(data_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQBENCH_DATA", str(data_cache))


@pytest.mark.data
@pytest.mark.usefixtures("_cache")
def test_jhmdb(data_cache: Path) -> None:
    splits = {split: JHMDBPose().read(split) for split in SPLITS}
    assert {split: len(rows) for split, rows in splits.items()} == card("jhmdb-pose").splits
    counts = {split: Counter(example.target for example in rows) for split, rows in splits.items()}
    assert all(len(found) == 14 for found in counts.values())
    assert sum(counts["train"].values()) + sum(counts["valid"].values()) == 433
    assert counts["test"].most_common(2) == [("pour", 16), ("pullup", 16)]
    every = [example.source for rows in splits.values() for example in rows]
    assert {len(source) for source in every} == set(range(15, 41)) & {len(source) for source in every}
    assert max(map(len, every)) == 40
    frames = np.concatenate(every).reshape(-1, 15, 2)
    np.testing.assert_allclose(np.linalg.norm(frames[:, 0] - frames[:, 1], axis=1).mean(), 1, atol=0.02)
    heights = np.median(frames[:, :, 1], axis=0)  # the picture's y points down
    assert heights[2] < heights[0] < heights[1] < heights[5] < heights[9] < heights[13]
    assert frames[:, [1, 3, 4, 5, 6]].mean() == pytest.approx(0, abs=1e-3)
    distances = np.median(np.linalg.norm(frames[:, :, None] - frames[:, None], axis=-1), axis=0)
    for a, b in ((3, 7), (4, 8), (7, 11), (8, 12), (5, 9), (6, 10), (9, 13), (10, 14)):
        assert b == min((j for j in range(7, 15) if j != a), key=lambda j: distances[a, j] + (abs(j - a) < 3)), (a, b)


@pytest.mark.data
@pytest.mark.usefixtures("_cache")
def test_msr_action3d(data_cache: Path) -> None:
    listed = (data_cache / "msr-action3d-as1" / "files_used_in_cvpr12_paper.txt").read_text()
    assert all(fact.name[9:20] in listed for fact in card("msr-action3d-as1").files)
    splits = {split: MSRAction3D().read(split) for split in SPLITS}
    assert {split: len(rows) for split, rows in splits.items()} == card("msr-action3d-as1").splits
    assert len(splits["train"]) + len(splits["valid"]) == 114
    every = [example for rows in splits.values() for example in rows]
    assert (min(len(e.source) for e in every), max(len(e.source) for e in every)) == (13, 76)
    frames = np.concatenate([e.source for e in every]).reshape(-1, 20, 3)
    heights = np.median(frames[:, :, 1], axis=0)
    assert heights[19] > heights[2] > heights[3] > heights[6] > heights[13] > heights[15] > heights[17]
    assert np.abs(frames).max() < 4  # no lost joint is left at the camera
    first = np.loadtxt(data_cache / "msr-action3d-as1/skeleton/a02_s01_e01_skeleton3D.txt").reshape(-1, 20, 4)
    assert splits["train"][0].target == "horizontal arm wave"
    for c in range(3):
        assert np.corrcoef(first[:, 9, c], splits["train"][0].source[:, 27 + c])[0, 1] == pytest.approx(1, abs=1e-5)
