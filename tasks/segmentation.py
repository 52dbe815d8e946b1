"""Segmentation: a class for each pixel of an image."""
# B batch, T tiles, L positions (squares of pixels), K classes, H W sides of an image, h w of a map, P pixels of a batch

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from encoders.base import Encoder, Grid, InputSpec, Sequences
from tasks.base import Accounting, Batch, Output, Task
from tasks.crops import Image, crop, tile_starts
from tasks.data.base import SPLITS, DataError, DataSet, Example
from tasks.metrics.base import Metric
from tasks.readout import auxiliary

MOST = 256  # classes


@dataclass(frozen=True, kw_only=True, slots=True)
class Images(Batch):
    """Images cut into tiles, those of a row one after the other; in training each row is one tile."""

    source: Sequences  # (T, L, patch * patch * colours) squares of pixels of a tile, row by row
    label: Tensor  # (P,) int64, class of each pixel, the images row by row and end to end
    size: Tensor  # (B, 2) int64, height and width of each image
    corner: Tensor  # (T, 2) int64, upper left pixel of each tile in its image


class Segmentation(Task):
    """Cross-entropy and Dice loss over pixels; a prediction is an array (H, W) of classes.

    `source` of an example is an image (H, W, colours) float, `target` (H, W) the classes of its pixels, 0 the
    background; their number is that of training. What an encoder reads are tiles of `crop` x `crop` pixels, as a
    sequence of squares of `patch` x `patch` (`spec.grid`), so any encoder of channels serves. It gives q x q states a
    square (one, of most; a pixel each, of those that decode); a 3x3 convolution makes logits of them, and bilinear
    upsampling those of pixels (the official TransUNet's head, Beckschen/TransUNet at 02ef001).

    Training draws `crops` tiles of each image an epoch, anywhere, and with `augment: turn` turns them: half of them by
    quarters and mirrored, half of the others by -20 to 19 degrees, nearest pixel, what lies outside mirrored (official:
    zeros). They are drawn with the loader's seeds, so resuming draws the same. Evaluation covers the image with tiles,
    the last of a row or column moved back to fit, whose pixels count. `dice` is the share of the Dice loss, see
    `dice_loss`: over the whole batch in training, and in evaluation of each image, so that means add up. Raises
    DataError for sources and targets of other shapes and for images smaller than a tile.
    """

    rules = frozenset({"majority", "random"})

    def __init__(
        self,
        *,
        data: DataSet,
        crop: Annotated[int, Field(gt=0)],
        patch: Annotated[int, Field(gt=0)],
        crops: Annotated[int, Field(gt=0)],
        augment: Literal["none", "turn"],
        dice: Annotated[float, Field(ge=0, le=1)],
        metrics: list[Metric],
    ) -> None:
        super().__init__(data=data, metrics=metrics)
        if crop % patch:
            raise ValueError(f"patch: {patch} pixels don't divide crop {crop}; use {_divisor_below(crop, patch)}")
        self.crop, self.patch, self.crops, self.augment, self.dice = crop, patch, crops, augment, dice
        self.grid = Grid(rows=crop // patch, columns=crop // patch, patch=patch)
        self.images: dict[str, list[Image]] = {}

    def outline(self) -> InputSpec:
        """Size as configured; one colour stands in for what the data has."""
        return self._spec(1)

    def _spec(self, colours: int) -> InputSpec:
        squares = self.grid.rows * self.grid.columns
        return InputSpec(max_length=squares, channels=self.patch**2 * colours, grid=self.grid)

    # -- data ----------------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Images of all splits; colours and classes are those of the training split."""
        self.colours = np.asarray(self.examples["train"][0].source).shape[-1]
        for split in SPLITS:
            self.images[split] = [self._image(e, split, row) for row, e in enumerate(self.examples[split])]
        counts_K = sum(np.bincount(image.label.ravel(), minlength=MOST) for image in self.images["train"])
        self.classes = int(np.flatnonzero(counts_K)[-1]) + 1
        self.majority = int(np.argmax(counts_K))
        if self.classes < 2:
            raise DataError("train: segmentation needs two classes or more; every pixel is of class 0")
        for split in SPLITS[1:]:
            for row, image in enumerate(self.images[split]):
                if image.label.max() >= self.classes:
                    place = self.examples[split][row].place(split, row)
                    raise DataError(f"{place}: a pixel of class {image.label.max()}; train has 0 to {self.classes - 1}")
        self.spec = self._spec(self.colours)

    def _image(self, example: Example, split: str, row: int) -> Image:
        place = example.place(split, row)
        pixels, label = np.asarray(example.source), np.asarray(example.target)
        if pixels.ndim != 3 or pixels.shape[2] != self.colours or pixels.dtype.kind != "f":
            raise DataError(
                f"{place}: an image of {pixels.shape} {pixels.dtype}; floats (H, W, {self.colours}) are right"
            )
        if label.shape != pixels.shape[:2] or label.dtype.kind not in "iu":
            raise DataError(f"{place}: an image of {pixels.shape[:2]} has a target of {label.shape} {label.dtype}")
        if min(label.shape) < self.crop:
            raise DataError(f"{place}: an image of {label.shape}, smaller than task.crop {self.crop}; set it lower")
        if not np.isfinite(pixels).all() or label.min() < 0 or label.max() >= MOST:
            raise DataError(f"{place}: pixels must be finite, and classes 0 to {MOST - 1}")
        if example.streams:
            raise DataError(f"{place}: has streams {sorted(example.streams)}; segmentation feeds none")
        return Image(pixels=pixels.astype(np.float32, copy=False), label=label.astype(np.uint8))

    def lengths(self, split: str) -> NDArray[np.int64]:
        """Positions of each row, of all its tiles; of training, of each crop."""
        squares = self.grid.rows * self.grid.columns
        if split == "train":
            return np.full(len(self.images[split]) * self.crops, squares, dtype=np.int64)
        return np.array([squares * len(self._corners(image)) for image in self.images[split]], dtype=np.int64)

    def _corners(self, image: Image) -> list[tuple[int, int]]:
        """Where tiles begin that cover the image."""
        tops, lefts = (tile_starts(side, self.crop) for side in image.label.shape)
        return [(top, left) for top in tops for left in lefts]

    def collate(self, split: str, rows: NDArray[np.int64]) -> Images:
        """Tiles of the rows; of training drawn by torch's random state, which the loader sets for each batch."""
        images = [self.images[split][row // self.crops if split == "train" else row] for row in rows.tolist()]
        corners: list[tuple[int, int]] = []
        tiles, labels, sizes = [], [], []
        if split == "train":
            for image, draws in zip(images, torch.rand(len(images), 6, dtype=torch.float64).tolist(), strict=True):
                drawn = crop(image, self.crop, draws, turn=self.augment == "turn")
                tiles.append(drawn.pixels)
                labels.append(drawn.label)
                sizes.append(drawn.label.shape)
                corners.append((0, 0))
        else:
            for image in images:
                found = self._corners(image)
                tiles += [image.pixels[top : top + self.crop, left : left + self.crop] for top, left in found]
                labels.append(image.label)
                sizes.append(image.label.shape)
                corners += found
        pixels_TCHW = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2)
        values = self.grid.line_up(pixels_TCHW).reshape(len(tiles), self.spec.max_length, -1)
        return Images(
            index=torch.from_numpy(rows),
            source=Sequences(values=values, mask=torch.ones(values.shape[:2], dtype=torch.bool)),
            label=torch.from_numpy(np.concatenate([label.ravel() for label in labels]).astype(np.int64)),
            size=torch.tensor(sizes),
            corner=torch.tensor(corners),
        )

    def accounting(self, split: str) -> Accounting:
        """Counts of positions; no image is cut, and no part of one left out."""
        lengths = self.lengths(split)
        return Accounting(examples=len(lengths), positions=int(lengths.sum()), truncated=0, dropped=0)

    # -- with an encoder -----------------------------------------------------------------------------------------
    def attach(self, encoder: Encoder) -> None:
        """A 3x3 convolution (D -> K) over the map of states."""
        self.head = nn.Conv2d(encoder.dim, self.classes, 3, padding=1)

    def forward(self, encoder: Encoder, batch: Batch) -> Output:
        """The weighted losses, a mean over pixels; outside training the class of the highest logit of each."""
        assert isinstance(batch, Images)
        states = encoder(batch.source)
        logits_TKhw = self.head(self.grid.lay_out(states.values)).float()
        if logits_TKhw.shape[2] != self.crop:
            size = (self.crop, self.crop)
            logits_TKhw = F.interpolate(logits_TKhw, size=size, mode="bilinear", align_corners=True)
        items = len(batch.label)
        if self.training:
            logits_PK = logits_TKhw.permute(0, 2, 3, 1).flatten(0, 2)
            return Output(loss=auxiliary(self._loss(logits_PK, batch.label), states), items=items)
        total, predictions, start = torch.zeros((), device=logits_TKhw.device), [], 0
        for logits_KHW in self._put_together(logits_TKhw, batch):
            logits_PK = logits_KHW.flatten(1).T
            end = start + len(logits_PK)
            total = total + self._loss(logits_PK, batch.label[start:end]) * len(logits_PK)
            predictions.append(logits_KHW.argmax(0).to(torch.uint8).cpu().numpy())
            start = end
        return Output(loss=auxiliary(total / items, states), items=items, predictions=predictions)

    def _loss(self, logits_PK: Tensor, label_P: Tensor) -> Tensor:
        entropy = F.cross_entropy(logits_PK, label_P)
        return (1 - self.dice) * entropy + self.dice * dice_loss(logits_PK, label_P)

    def _put_together(self, logits_TKhw: Tensor, batch: Images) -> Iterator[Tensor]:
        """Logits of each image, (K, H, W); where tiles overlap, the later one's."""
        sizes, corners, at = batch.size.tolist(), batch.corner.tolist(), 0
        for height, width in sizes:
            image_KHW = logits_TKhw.new_zeros(self.classes, height, width)
            for _ in range(len(tile_starts(height, self.crop)) * len(tile_starts(width, self.crop))):
                top, left = corners[at]
                image_KHW[:, top : top + self.crop, left : left + self.crop] = logits_TKhw[at]
                at += 1
            yield image_KHW

    def references(self, split: str) -> list[Any]:
        """Classes of each row's image, (H, W); of training, where a row is a crop, of the image that it is from."""
        times = self.crops if split == "train" else 1
        return [image.label for image in self.images[split] for _ in range(times)]

    def trivial(self, rule: str, split: str, seed: int) -> dict[int, Any]:
        """`majority`: the most frequent class of training, at every pixel. `random`: uniform over classes, by seed."""
        shapes = [label.shape for label in self.references(split)]
        if rule == "majority":
            flat = {shape: np.full(shape, self.majority, dtype=np.uint8) for shape in shapes}
            return {row: flat[shape] for row, shape in enumerate(shapes)}
        if rule == "random":
            generator = np.random.default_rng([seed, SPLITS.index(split)])
            return {row: generator.integers(self.classes, size=s, dtype=np.uint8) for row, s in enumerate(shapes)}
        return super().trivial(rule, split, seed)


def dice_loss(logits_PK: Tensor, label_P: Tensor) -> Tensor:
    """1 - (2 sum p g + 1e-5) / (sum p^2 + sum g^2 + 1e-5), a mean over classes, the background's included.

    p are softmax probabilities and g the classes one-hot, sums are over all P pixels given, of whatever image
    (Milletari et al. 2016, arXiv 1606.04797, as in the official TransUNet).
    """
    p_PK = logits_PK.softmax(1)
    g_PK = F.one_hot(label_P, logits_PK.shape[1]).to(p_PK.dtype)
    both_K = (p_PK * g_PK).sum(0)
    sizes_K = p_PK.square().sum(0) + g_PK.sum(0)
    return 1 - ((2 * both_K + 1e-5) / (sizes_K + 1e-5)).mean()


def _divisor_below(number: int, wish: int) -> int:
    return max(d for d in range(1, min(wish, number) + 1) if number % d == 0)
