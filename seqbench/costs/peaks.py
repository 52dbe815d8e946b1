"""Dense peaks of devices, in operations a second: what a model's FLOP utilisation (MFU) is a share of.

Without structured sparsity, by the maker's sheets, where sparse figures are twice these: NVIDIA A100 (2021), A10, A30,
A40, L4, L40, L40S, H100 (2023), H100 NVL, H200 (2024), HGX B200 (2025), V100 and T4 (2018); the Ada and Ampere
whitepapers for GeForce and RTX (with float32 accumulation). A device that is not here has no MFU.
"""

from __future__ import annotations

from typing import NamedTuple

TERA = 1e12


class Peaks(NamedTuple):
    """Teraflops by the type of the operands; None: the device has no units for it."""

    bf16: float | None
    fp16: float | None
    tf32: float | None
    fp32: float


DEVICES = (  # the first whose words are all in the device's name, so the longer names first
    ("B200", Peaks(2250.0, 2250.0, 1125.0, 75.0)),
    ("H200", Peaks(989.4, 989.4, 494.7, 66.9)),
    ("H100 NVL", Peaks(835.5, 835.5, 417.5, 60.0)),
    ("H100 PCIe", Peaks(756.5, 756.5, 378.0, 51.2)),
    ("H100", Peaks(989.4, 989.4, 494.7, 66.9)),
    ("A100", Peaks(312.0, 312.0, 156.0, 19.5)),
    ("A30", Peaks(165.0, 165.0, 82.0, 10.3)),
    ("A40", Peaks(149.7, 149.7, 74.8, 37.4)),
    ("A10", Peaks(125.0, 125.0, 62.5, 31.2)),
    ("L40S", Peaks(362.0, 362.0, 183.0, 91.6)),
    ("L40", Peaks(181.0, 181.0, 90.5, 90.5)),
    ("L4", Peaks(121.0, 121.0, 60.0, 30.3)),
    ("A6000", Peaks(154.8, 154.8, 77.4, 38.7)),
    ("RTX 4090", Peaks(165.2, 165.2, 82.6, 82.6)),
    ("RTX 3090", Peaks(71.0, 71.0, 35.6, 35.6)),
    ("V100", Peaks(None, 125.0, None, 15.7)),
    ("T4", Peaks(None, 65.0, None, 8.1)),
)


def peak(name: str, precision: str, *, tf32: bool) -> float | None:
    """Operations a second of a device of this name in one of Lightning's precisions; None where it isn't known.

    Raises ValueError for a precision that is none of ours.
    """
    words = name.replace("-", " ").split()
    for known, peaks in DEVICES:
        if all(word in words for word in known.split()):
            found = {
                "bf16-mixed": peaks.bf16,
                "16-mixed": peaks.fp16,
                "32-true": peaks.tf32 if tf32 else peaks.fp32,
            }
            if precision not in found:
                raise ValueError(f"precision: {precision} has no peak here; known are {', '.join(found)}")
            value = found[precision]
            return None if value is None else value * TERA
    return None
