"""MSR-Action3D, action set 1: which of 8 movements, from 20 joints that a Kinect has seen."""
# L frames, N joints

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from encoders.base import Graph
from tasks.data.base import DataError, Example
from tasks.data.pinned_set import PinnedSet
from tasks.data.skeletons import filled, normalised

NAME = re.compile(r"skeleton/a(\d\d)_s(\d\d)_e(\d\d)_skeleton3D\.txt")
SUBJECTS = {"train": (1, 3, 5, 7), "valid": (9,), "test": (2, 4, 6, 8, 10)}
ACTIONS = {
    2: "horizontal arm wave",
    3: "hammer",
    5: "forward punch",
    6: "high throw",
    10: "hand clap",
    13: "bend",
    18: "tennis serve",
    20: "pickup and throw",
}
NECK, HIP = 2, 6
SKELETON = Graph(
    nodes=20,
    width=3,
    # right and left: shoulder 0 1, hip 4 5, elbow 7 8, wrist 9 10, hand 11 12, knee 13 14, ankle 15 16, foot 17 18;
    # neck 2, spine 3, hip centre 6, head 19
    edges=(
        *((19, 2), (0, 2), (1, 2), (0, 7), (7, 9), (9, 11), (1, 8), (8, 10), (10, 12), (2, 3), (3, 6)),
        *((6, 4), (6, 5), (4, 13), (13, 15), (15, 17), (5, 14), (14, 16), (16, 18)),
    ),
    parts=((19, 2), (0, 1, 3, 4, 5, 6), (7, 9, 11), (8, 10, 12), (13, 15, 17), (14, 16, 18)),
)


class MSRAction3D(PinnedSet):
    """219 recordings of 13 to 76 frames (Li et al. 2010), those of the list that papers use (Wang et al. 2012).

    Source: (L, 60) float32, x, y and z of the joints; of each recording the centre of the hips is 0 on average and the
    distance of neck and hip centre 1. A joint that was lost (zeros) lies between the frames that have it. Target: the
    action. Subjects 1, 3, 5, 7, 9 train in publications, of whom 9 validates here, and 2, 4, 6, 8, 10 test. Order:
    action, subject, repetition. Joints' names are those that the distances between them bear out; right and left are
    not told.
    """

    pinned = "msr-action3d-as1"
    modality = "skeleton"
    graph = SKELETON

    def read(self, split: str) -> Sequence[Example]:
        """Recordings of the split's subjects."""
        found = []
        for name, path in sorted(self.located().items()):
            parts = NAME.fullmatch(name)
            if parts is not None and int(parts[2]) in SUBJECTS[split]:
                found.append(read_recording(path, ACTIONS[int(parts[1])]))
        return found


def read_recording(path: Path, action: str) -> Example:
    """Of a file with 20 lines a frame, four numbers each. Raises DataError for any other, with the file's name."""
    try:
        numbers = np.array(path.read_text(encoding="ascii").split(), dtype=np.float64)
        joints_LNC = numbers.reshape(-1, SKELETON.nodes, 4)[:, :, :3]
        if not len(joints_LNC) or not np.isfinite(joints_LNC).all():
            raise ValueError("it holds no frames, or numbers that are not finite")
        lost_LN = (joints_LNC == 0).all(axis=2)
        source = normalised(filled(joints_LNC, lost_LN), centre=(HIP,), length=(NECK, HIP))
    except ValueError as error:
        raise DataError(f"msr-action3d-as1: {path.name}: {error}; 20 lines of x y z confidence a frame") from None
    return Example(source=source, target=action, where=path.name)
