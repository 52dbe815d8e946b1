"""JHMDB: what somebody does in a short video, from 15 joints in two dimensions."""
# L frames, N joints

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.base import Graph
from tasks.data.base import DataError, Example
from tasks.data.numpy_pickle import read_numpy_pickle
from tasks.data.pinned_set import PinnedSet
from tasks.data.skeletons import normalised

VALID = 0.15  # share of the training clips of each action
NECK, BELLY, SHOULDERS, HIPS = 0, 1, (3, 4), (5, 6)
SKELETON = Graph(
    nodes=15,
    width=2,
    # neck 0, belly 1, face 2; right and left: shoulder 3 4, hip 5 6, elbow 7 8, knee 9 10, wrist 11 12, ankle 13 14
    edges=(
        *((0, 1), (0, 2), (0, 3), (0, 4), (3, 7), (7, 11), (4, 8), (8, 12)),
        *((1, 5), (1, 6), (5, 9), (9, 13), (6, 10), (10, 14)),
    ),
    # as SkeletonMAE has them: head, torso, arms, legs, the right one first
    parts=((0, 2), (1, 3, 4, 5, 6), (7, 11), (8, 12), (9, 13), (10, 14)),
)


class JHMDBPose(PinnedSet):
    """609 clips of 15 to 40 frames, 14 actions (Jhuang et al. 2013), in the form and first split of DD-Net (2019).

    Source: (L, 30) float32, the joints' x and y, annotated by hand; of each clip the mean of belly, shoulders and hips
    is 0 and the distance of neck and belly 1. Target: the action. The 176 test clips are the official ones; of the 433
    training clips 15 % of each action validate, chosen by a hash of their poses. Clips of one video are on one side of
    the official split; which are is not told in the files, so validation may share videos with training.
    """

    pinned = "jhmdb-pose"
    modality = "skeleton"
    graph = SKELETON

    def read(self, split: str) -> Sequence[Example]:
        """Clips in the order of the file."""
        part = "test" if split == "test" else "train"
        clips = read_clips(self.located()[f"GT_{part}_1.pkl"])
        if split == "test":
            return [example for _, example in clips]
        valid = validating([(pose, example.target) for pose, example in clips])
        return [example for row, (_, example) in enumerate(clips) if (row in valid) == (split == "valid")]


def read_clips(path: Path) -> list[tuple[NDArray[np.float64], Example]]:
    """Poses (L, 15, 2) as in the file, each with its example. Raises DataError for anything else."""
    content: Any = read_numpy_pickle(path, name="jhmdb-pose")
    if not isinstance(content, dict) or not {"pose", "label"} <= set(content):
        raise DataError(f"jhmdb-pose: {path.name} is no mapping with pose and label")
    poses, labels = content["pose"], content["label"]
    if not isinstance(poses, list) or not isinstance(labels, list) or len(poses) != len(labels):
        raise DataError(f"jhmdb-pose: {path.name}: pose and label are not two lists of one length")
    clips = []
    for row, (pose, label) in enumerate(zip(poses, labels, strict=True)):
        where = f"{path.name} clip {row}"
        if not isinstance(pose, np.ndarray) or pose.dtype.kind != "f" or pose.shape[1:] != (15, 2) or not len(pose):
            raise DataError(f"jhmdb-pose: {where}: a pose is floats of (frames, 15, 2)")
        if not isinstance(label, str) or not np.isfinite(pose).all():
            raise DataError(f"jhmdb-pose: {where}: needs finite numbers and the name of an action")
        try:
            source = normalised(pose, centre=(BELLY, *SHOULDERS, *HIPS), length=(NECK, BELLY))
        except ValueError as error:
            raise DataError(f"jhmdb-pose: {where}: {error}") from None
        clips.append((pose, Example(source=source, target=label, where=where)))
    return clips


def validating(clips: Sequence[tuple[NDArray[np.float64], str]]) -> set[int]:
    """Rows of the clips (pose, action) that validate: of each action the first by a hash of their poses."""
    actions: dict[str, list[tuple[str, int]]] = {}
    for row, (pose, action) in enumerate(clips):
        content = hashlib.sha256(np.ascontiguousarray(pose, dtype="<f8").tobytes()).hexdigest()
        actions.setdefault(action, []).append((content, row))
    return {row for found in actions.values() for _, row in sorted(found)[: round(VALID * len(found))]}
