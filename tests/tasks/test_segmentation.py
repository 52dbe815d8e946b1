"""Segmentation: the sheet's loss, tiles that cover, crops that come again, states of every fineness, both data sets."""
# P pixels, K classes, H W sides of an image, D width

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from encoders.base import Encoder, Grid, InputSpec, Sequences, States
from seqbench.build import PairError, build, judge
from seqbench.composition.nodes import compose_node
from tasks.crops import Image, crop, tile_starts
from tasks.data import isbi2012_em
from tasks.data.base import DataError, DataSet, Example, FileFact
from tasks.data.cue_and_discs import CueAndDiscs
from tasks.data.isbi2012_em import ISBI2012EM, read_grey, read_labels
from tasks.loading import Batching
from tasks.metrics.overlap import Dice, Hausdorff95
from tasks.segmentation import Segmentation, dice_loss


# -- the loss --------------------------------------------------------------------------------------------------------
def test_losses_of_the_sheet() -> None:
    logits_BKHW = np.sin(np.arange(96)).reshape(2, 3, 4, 4)
    target_BHW = (7 * np.arange(32) % 3).reshape(2, 4, 4)
    p = np.exp(logits_BKHW) / np.exp(logits_BKHW).sum(1, keepdims=True)
    g = np.stack([target_BHW == k for k in range(3)], 1).astype(float)
    terms = [
        1 - (2 * (p[:, k] * g[:, k]).sum() + 1e-5) / ((p[:, k] ** 2).sum() + (g[:, k] ** 2).sum() + 1e-5)
        for k in range(3)
    ]
    entropy = -np.log((p * g).sum(1)).mean()
    assert (np.mean(terms), entropy) == (pytest.approx(0.546873, abs=1e-6), pytest.approx(1.335049, abs=1e-6))
    logits_PK = torch.tensor(logits_BKHW).permute(0, 2, 3, 1).reshape(-1, 3)
    label_P = torch.tensor(target_BHW).flatten()
    assert float(dice_loss(logits_PK, label_P)) == pytest.approx(0.546873, abs=1e-6)
    task = made(Toy(), crop=8, patch=4, dice=0.5)
    assert float(task._loss(logits_PK, label_P)) == pytest.approx(0.940961, abs=1e-6)
    weighed = made(Toy(), crop=8, patch=4, dice=0.2)
    assert float(weighed._loss(logits_PK, label_P)) == pytest.approx(0.2 * 0.546873 + 0.8 * 1.335049, abs=1e-6)
    assert float(dice_loss(1e4 * F.one_hot(label_P, 3).double(), label_P)) == pytest.approx(0)
    assert 0 < float(dice_loss(torch.zeros(32, 3), label_P)) < 1


# -- images and crops --------------------------------------------------------------------------------------------------
def image_of(height: int, width: int) -> Image:
    """Pixels that say where they are; a label that says it, too."""
    places = np.arange(height * width).reshape(height, width)
    return Image(pixels=places[:, :, None].astype(np.float32), label=(places % 251).astype(np.uint8))


@pytest.mark.parametrize("side, tile, starts", [(8, 8, [0]), (16, 8, [0, 8]), (19, 8, [0, 8, 11]), (9, 8, [0, 1])])
def test_tiles_cover_a_side(side: int, tile: int, starts: list[int]) -> None:
    assert tile_starts(side, tile) == starts


def test_a_crop_without_turning_is_a_part() -> None:
    image = image_of(20, 30)
    for draws, top, left in (((0, 0), 0, 0), ((0.999, 0.999), 12, 22), ((0.5, 0.25), 6, 5)):
        found = crop(image, 8, [*draws, 0, 0, 0, 0], turn=False)
        assert np.array_equal(found.label, image.label[top : top + 8, left : left + 8])
        kept = crop(image, 8, [*draws, 0.51, 0.51, 0, 0], turn=True)
        assert np.array_equal(kept.pixels, found.pixels)


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("mirror", [0, 1])
def test_quarters_and_mirrors_are_exact(side: int, mirror: int) -> None:
    image = image_of(20, 30)
    plain = crop(image, side, [0.5, 0.5, 0, 0, 0, 0], turn=False)
    found = [crop(image, side, [0.5, 0.5, 0.49, 0.9, k / 4, mirror / 2], turn=True) for k in range(4)]
    every = {np.rot90(np.flip(plain.label, mirror), k).tobytes() for k in range(4)}
    assert {one.label.tobytes() for one in found} == every
    for one in found:
        assert np.array_equal(one.pixels[:, :, 0] % 251, one.label)
        assert sorted(one.pixels.ravel()) == sorted(plain.pixels.ravel())


def test_small_turns_are_those_of_scipy_and_read_what_lies_around() -> None:
    from scipy.ndimage import rotate

    rows, columns = np.mgrid[:61, :61]
    image = Image(pixels=(rows + 100.0 * columns)[:, :, None].astype(np.float32), label=(rows % 251).astype(np.uint8))
    for draw, degrees in ((0.0, -20), (0.999, 19), (0.75, 10)):
        found = crop(image, 21, [0.5, 0.5, 0.51, 0.49, draw, 0], turn=True)
        expected = rotate(image.pixels[:, :, 0], degrees, order=0, reshape=False, mode="mirror")[20:41, 20:41]
        assert (found.pixels[:, :, 0] == expected).mean() > 0.99, degrees  # all but what lies between two pixels
        assert np.array_equal(found.pixels[:, :, 0] % 100, found.label)
    edge = crop(image_of(21, 21), 21, [0, 0, 0.9, 0.1, 0, 0], turn=True)
    assert len(np.unique(edge.pixels)) > 300  # mirrored, no fill


# -- the task ----------------------------------------------------------------------------------------------------------
class Toy(DataSet):
    """Images of (height, width), a bright square whose pixels are class 1."""

    modality = "image"

    def __init__(self, *sizes: tuple[int, int], colours: int = 1) -> None:
        self.sizes, self.colours = sizes or ((16, 16),), colours

    def identity(self) -> list[FileFact]:
        return []

    def check(self) -> None:
        pass

    def read(self, split: str) -> list[Example]:
        generator = np.random.default_rng(len(split))
        found = []
        for height, width in self.sizes:
            target = np.zeros((height, width), dtype=np.uint8)
            i, j = generator.integers(height - 4), generator.integers(width - 4)
            target[i : i + 4, j : j + 4] = 1
            noise = generator.normal(size=(height, width, self.colours)).astype(np.float32)
            found.append(Example(source=noise / 4 + target[:, :, None], target=target))
        return found


def made(data: DataSet, **changes: Any) -> Segmentation:
    arguments: dict[str, Any] = {"crop": 8, "patch": 4, "crops": 3, "augment": "turn", "dice": 0.5}
    return Segmentation(data=data, metrics=[Dice(), Hausdorff95()], **(arguments | changes))


class Copying(Encoder):
    """States are what is read: the mean of each of q x q cells of a square, and for as many as pixels the pixels."""

    causal = False

    def __init__(self, grid: Grid, q: int, colours: int = 1) -> None:
        super().__init__()
        self.grid, self.q, self.dim = grid, q, colours

    def forward(self, source: Sequences) -> States:
        rows, length = source.mask.shape
        image = self.grid.lay_out(source.values.reshape(rows, length * self.grid.patch**2, -1))
        pooled = F.avg_pool2d(image, self.grid.patch // self.q)
        mask = source.mask.repeat_interleave(self.q**2, dim=1)
        return States(values=self.grid.line_up(pooled), mask=mask)

    def num_states(self, length: int) -> int:
        return length * self.q**2


def attached(task: Segmentation, q: int, colours: int = 1) -> Copying:
    task.setup()
    encoder = Copying(task.grid, q, colours)
    task.attach(encoder)
    return encoder


@pytest.mark.parametrize("sizes", [((16, 16),), ((19, 27), (8, 8), (16, 9))])
@pytest.mark.parametrize("q", [1, 2, 4])
def test_evaluation_lays_every_pixel_where_it_is(sizes: tuple[tuple[int, int], ...], q: int) -> None:
    """A head that reads the middle alone: a prediction is the image by a threshold, whatever the tiles."""
    task = made(Toy(*sizes))
    encoder = attached(task, q)
    with torch.no_grad():
        task.head.weight.zero_()
        task.head.weight[1, 0, 1, 1] = 1.0
        task.head.bias.copy_(torch.tensor([0.5, 0.0]))
    task.eval()
    batch = task.collate("test", np.arange(len(sizes)))
    with torch.no_grad():
        output = task(encoder, batch)
    for example, found in zip(task.examples["test"], output.predictions, strict=True):
        assert found.shape == example.target.shape
        if q == 4:
            assert np.array_equal(found, example.source[:, :, 0] > 0.5)
    if q < 4:  # of the first tile alone: cells' means, upsampled
        first = torch.tensor(task.examples["test"][0].source[None, :8, :8, 0])
        coarse = F.avg_pool2d(first[None], 4 // q)
        fine = F.interpolate(coarse, size=(8, 8), mode="bilinear", align_corners=True)[0, 0] > 0.5
        tile = output.predictions[0][:8, :8]
        assert np.array_equal(tile, fine.numpy()) or sizes[0] != (16, 16)
    assert output.items == sum(height * width for height, width in sizes)


def test_evaluation_has_each_images_dice_and_training_the_batchs() -> None:
    task = made(Toy((16, 16), (16, 24)), crop=16, augment="none")
    encoder = attached(task, 4)
    batch = task.collate("valid", np.arange(2))
    task.eval()
    with torch.no_grad():
        whole = task(encoder, batch)
        parts = [task(encoder, task.collate("valid", np.array([row]))) for row in range(2)]
    assert float(whole.loss) == pytest.approx(sum(float(p.loss) * p.items for p in parts) / whole.items, rel=1e-6)
    image = task.images["valid"][0]  # one tile
    with torch.no_grad():
        logits_PK = task.head(torch.from_numpy(image.pixels).permute(2, 0, 1)).flatten(1).T
    label_P = torch.from_numpy(image.label).flatten().long()
    expected = 0.5 * F.cross_entropy(logits_PK, label_P) + 0.5 * dice_loss(logits_PK, label_P)
    assert float(parts[0].loss) == pytest.approx(float(expected), rel=1e-6)
    train = task.train()
    drawn = train.collate("train", np.arange(2))
    with torch.no_grad():
        map_TKHW = train.head(train.grid.lay_out(encoder(drawn.source).values))
        logits_PK = map_TKHW.permute(0, 2, 3, 1).reshape(-1, 2)
        expected = 0.5 * F.cross_entropy(logits_PK, drawn.label) + 0.5 * dice_loss(logits_PK, drawn.label)
        assert float(train(encoder, drawn).loss) == pytest.approx(float(expected), rel=1e-6)


def test_crops_are_drawn_by_the_loader_and_go_on_where_it_was() -> None:
    task = made(Toy((32, 40), (33, 32)), crops=5)
    attached(task, 1)

    def loader(epoch: int, position: int = 0) -> list[Any]:
        found = task.loader("train", batching=Batching(rows=4), seed=7, shuffle=True)
        found.load_state_dict({"epoch": epoch, "position": position})
        return list(found)

    def same(a: Any, b: Any) -> bool:
        return torch.equal(a.source.values, b.source.values) and torch.equal(a.label, b.label)

    torch.manual_seed(1)
    first = loader(0)
    torch.manual_seed(2)  # training's own state decides nothing, and is left
    before = torch.get_rng_state()
    again, rest = loader(0), loader(0, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert [len(batch.index) for batch in first] in ([4, 4, 2], [4, 2, 4], [2, 4, 4])
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert all(same(a, b) for a, b in zip(first[1:], rest, strict=True))
    assert not any(same(a, b) for a in first for b in loader(1))
    tiles = torch.cat([batch.source.values for batch in first])
    assert len({tile.numpy().tobytes() for tile in tiles}) == len(task.lengths("train")) == 10


def test_a_row_of_training_is_a_crop_of_the_image_that_it_refers_to() -> None:
    task = made(Toy((16, 16), (16, 24), (24, 16)), crops=4)
    attached(task, 4)
    for number, image in enumerate(task.images["train"]):
        image.label[:] = number
    batch = task.collate("train", np.arange(12))
    found = batch.label.reshape(12, -1)
    assert found.tolist() == [[int(label[0, 0])] * 64 for label in task.references("train")]
    assert [label.shape for label in task.references("train")] == [(16, 16)] * 4 + [(16, 24)] * 4 + [(24, 16)] * 4


def test_labels_go_with_their_pixels() -> None:
    """Through cutting into squares, turning and mirroring: of an image that is its own label."""
    task = made(Toy((24, 40)), crops=40)
    encoder = attached(task, 4)
    task.images["train"] = [
        Image(pixels=i.label[:, :, None].astype(np.float32), label=i.label) for i in task.images["train"]
    ]
    batch = task.collate("train", np.arange(40))
    image = task.grid.lay_out(encoder(batch.source).values)[:, 0]
    assert torch.equal(image.flatten().long(), batch.label)
    assert 0 < int(batch.label.sum()) < len(batch.label)


def test_colours() -> None:
    task = made(Toy((16, 16), colours=3))
    encoder = attached(task, 4, colours=3)
    assert task.spec.channels == 48
    batch = task.collate("test", np.array([0]))
    image = task.grid.lay_out(encoder(batch.source).values)
    expected = torch.tensor(task.examples["test"][0].source[8:, :8]).permute(2, 0, 1)
    assert torch.equal(image[2], expected)


def changed(**changes: Any) -> DataSet:
    class Changed(Toy):
        def read(self, split: str) -> list[Example]:
            [example] = super().read(split)
            given = {"source": example.source, "target": example.target} | {
                key: change(getattr(example, key)) for key, change in changes.items()
            }
            return [Example(**given)]

    return Changed()


@pytest.mark.parametrize(
    "data, message",
    [
        (changed(source=lambda x: x[:, :, 0]), r"train row 0: an image of \(16, 16\) float32"),
        (changed(source=lambda x: (x > 0).astype(np.uint8)), "uint8"),
        (changed(target=lambda y: y[:-1]), r"\(16, 16\) has a target of \(15, 16\)"),
        (changed(target=lambda y: y * 0.5), "float64"),
        (changed(source=lambda x: x * np.nan), "finite"),
        (changed(target=lambda y: y.astype(int) - 1), "classes 0 to 255"),
        (changed(target=lambda y: y * 0), "two classes or more"),
        (Toy((16, 16), (7, 16)), r"train row 1: an image of \(7, 16\), smaller than task.crop 8"),
    ],
)
def test_what_is_refused(data: DataSet, message: str) -> None:
    with pytest.raises(DataError, match=message):
        made(data).setup()


def test_a_class_that_training_does_not_have() -> None:
    class More(Toy):
        def read(self, split: str) -> list[Example]:
            [example] = super().read(split)
            return [Example(source=example.source, target=example.target * (2 if split == "test" else 1))]

    with pytest.raises(DataError, match=r"test row 0: a pixel of class 2; train has 0 to 1"):
        made(More()).setup()
    with pytest.raises(ValueError, match="patch: 3 pixels don't divide crop 8; use 2"):
        made(Toy(), patch=3)


def test_an_encoder_that_merges_squares_is_refused_before_data_is_read() -> None:
    task = made(Toy())
    merging = build(
        {**compose_node("encoder", "encoder_only"), "patch": 2}, "encoder", ["encoders"], spec=task.outline()
    )
    with pytest.raises(PairError, match="merges 4 squares into 2 states"):
        judge(merging, task, task.outline(), encoder_name="merging", task_name="toy")
    judge(Copying(task.grid, 2), task, task.outline(), encoder_name="copying", task_name="toy")


def test_a_grid_is_of_its_positions() -> None:
    grid = Grid(rows=2, columns=3, patch=4)
    assert [grid.across(n) for n in (6, 24, 54, 12, 7, 3)] == [1, 2, 3, 0, 0, 0]
    image = torch.arange(2 * 5 * 8 * 12.0).reshape(2, 5, 8, 12)
    cells = grid.line_up(image)
    assert torch.equal(grid.lay_out(cells), image)
    assert torch.equal(cells[1, 16 * 4 + 4 * 2 + 3], image[1, :, 4 + 2, 4 + 3])  # square 4 is in row 1, column 1
    for length, channels in ((5, 16), (6, 15), (6, None)):
        with pytest.raises(ValueError, match="InputSpec"):
            InputSpec(max_length=length, channels=channels, vocab_size=None if channels else 9, grid=grid)


# -- data --------------------------------------------------------------------------------------------------------------
def test_discs_or_rings_as_the_square_says() -> None:
    """Of each image by its pixels alone: the square is found, and what it says makes the target of the bright discs."""
    rows = CueAndDiscs(train=40, valid=1, test=1, seed=0).read("train")
    above = 0
    for example in rows:
        image, target = example.source[:, :, 0], example.target.astype(bool)
        sums = np.lib.stride_tricks.sliding_window_view(image[:, 1:26], (25, 25)).mean((1, 2, 3))
        middle = int(sums.argmax()) + 12
        assert 14 <= middle <= 49 or 78 <= middle <= 113
        above += middle < 64
        assert not target[:, :105].any()
        inner, outer = image[target].mean(), image[:, 100:][~target[:, 100:]].mean()
        if middle < 64:
            assert inner == pytest.approx(0.6, abs=0.03)
            assert outer == pytest.approx(0.3, abs=0.03)
        else:
            assert inner == pytest.approx(0.3, abs=0.03)  # beside the discs
            assert outer > 0.31
    assert 10 < above < 30
    again = CueAndDiscs(train=2, valid=1, test=1, seed=0).read("train")
    assert all(np.array_equal(a.source, b.source) for a, b in zip(rows, again, strict=False))  # one by one, by number
    other = CueAndDiscs(train=2, valid=1, test=1, seed=1).read("train")
    assert not np.array_equal(again[0].source, other[0].source)


def test_discs_stay_the_same() -> None:
    """A checksum, so that no version of a library changes the data unseen."""
    import hashlib

    total = hashlib.sha256()
    for example in CueAndDiscs(train=1, valid=1, test=4, seed=0).read("test"):
        total.update(np.round(255 * example.source).astype(np.uint8).tobytes() + example.target.tobytes())
    assert total.hexdigest()[:16] == "2834509f5d58e0aa"


@pytest.mark.data
def test_membranes(data_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sheet's figures over slices 0-23 and 24-29: shares, all membrane, grey below 104 (its Dice of all pixels)."""
    monkeypatch.setenv("SEQBENCH_DATA", str(data_cache))
    data = ISBI2012EM(valid_from=20, test_from=24)
    splits = {split: data.read(split) for split in ("train", "valid", "test")}
    assert [len(rows) for rows in splits.values()] == [20, 4, 6]
    gold = [example.target for rows in splits.values() for example in rows]
    assert np.mean(gold) == pytest.approx(0.220, abs=5e-4)
    grey = [example.source[:, :, 0] < 103.5 / 255 for rows in splits.values() for example in rows]

    def of_all_pixels(part: slice) -> float:
        a, b = np.stack(grey[part]), np.stack(gold[part]).astype(bool)
        return float(2 * (a & b).sum() / (a.sum() + b.sum()))

    assert of_all_pixels(slice(0, 24)) == pytest.approx(0.608, abs=5e-4)
    assert of_all_pixels(slice(24, 30)) == pytest.approx(0.554, abs=5e-4)
    everything = [np.ones_like(target) for target in gold[24:]]
    assert Dice().score(everything, gold[24:]) == pytest.approx(0.328, abs=5e-4)
    assert Dice().score(grey[24:], gold[24:]) == pytest.approx(0.5532, abs=5e-5)  # a mean over images


def test_broken_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image as Picture

    def write(name: str, pixels: np.ndarray) -> Path:
        Picture.fromarray(pixels).save(tmp_path / name)
        return tmp_path / name

    grey = (np.arange(512 * 512) ** 2 // 7 % 256).reshape(512, 512).astype(np.uint8)
    assert np.array_equal(read_grey(write("a.png", grey)), grey)
    with pytest.raises(DataError, match=r"b\.png holds other values"):
        read_labels(write("b.png", grey))
    with pytest.raises(DataError, match=r"c\.png is \(512, 512, 3\) RGB"):
        read_grey(write("c.png", np.stack([grey] * 3, 2)))
    (tmp_path / "d.png").write_bytes((tmp_path / "a.png").read_bytes()[:500])
    with pytest.raises(DataError, match=r"d\.png can't be read"):
        read_grey(tmp_path / "d.png")
    with pytest.raises(ValueError, match="valid_from: 24 must be below test_from 20"):
        ISBI2012EM(valid_from=24, test_from=20)
    assert isbi2012_em.SLICES == 30
