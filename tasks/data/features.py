"""Log-mel spectrograms: sound -> frames of channels, by numpy alone."""
# S samples, L frames, W window, Q frequencies of the transform, M mel bands

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

FLOOR = 1e-10  # least energy whose logarithm is taken: about -23, below the noise of 16-bit sound


@dataclass(frozen=True, slots=True)
class Scale:
    """Mean and deviation of each band over training frames, never over one recording, whose future a stream lacks."""

    mean_M: NDArray[np.float64]
    deviation_M: NDArray[np.float64]

    @classmethod
    def of(cls, spectrograms: Sequence[NDArray[np.float32]]) -> Scale:
        """Of all frames of spectrograms (L, M); a band without any change is left as large as it is."""
        frames = np.concatenate(spectrograms)
        deviation_M = frames.std(axis=0, dtype=np.float64)
        return cls(frames.mean(axis=0, dtype=np.float64), np.where(deviation_M > 0, deviation_M, 1.0))

    def __call__(self, x_LM: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standardised, (L, M) float32."""
        return ((x_LM - self.mean_M) / self.deviation_M).astype(np.float32)


def log_mel(
    samples: NDArray[np.float32], *, rate: int, window_ms: float, hop_ms: float, mels: int
) -> NDArray[np.float32]:
    """Natural logarithm of the energy in `mels` bands, (L, M) float32, of sound (S,) with samples in [-1, 1].

    Frames of `window_ms` every `hop_ms`, whole ones only (sound shorter than one is filled up with zeros):
    L = 1 + (S - W) // hop. Each is weighted by a periodic Hann window and filled up to a power of two; the bands
    weigh its power spectrum, |X|^2. No pre-emphasis, no dithering.
    """
    width, hop = round(rate * window_ms / 1000), round(rate * hop_ms / 1000)
    if len(samples) < width:
        samples = np.pad(samples, (0, width - len(samples)))
    size = 1 << (width - 1).bit_length()
    frames_LW = sliding_window_view(samples, width)[::hop]
    hann_W = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(width) / width)
    spectrum_LQ = np.fft.rfft(frames_LW * hann_W, n=size)
    power_LQ = spectrum_LQ.real**2 + spectrum_LQ.imag**2
    energy_LM = power_LQ @ mel_bands(rate, size, mels).T
    return np.log(np.maximum(energy_LM, FLOOR)).astype(np.float32)


@cache
def mel_bands(rate: int, size: int, mels: int) -> NDArray[np.float64]:
    """Weights (M, Q) of triangular bands, Q = size // 2 + 1, each with a peak of 1.

    Centres are evenly spaced on the mel scale of HTK, 2595 log10(1 + f / 700), from 0 Hz to half the rate; a band
    reaches from the centre below to the centre above (Davis and Mermelstein 1980). ValueError where a band would hold
    no frequency of the transform.
    """
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, mels + 2) / 2595) - 1)
    frequencies_Q = np.arange(size // 2 + 1) * rate / size
    below_M, centre_M, above_M = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (frequencies_Q - below_M) / (centre_M - below_M)
    falling = (above_M - frequencies_Q) / (above_M - centre_M)
    bands_MQ: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling))
    if not bands_MQ.any(axis=1).all():
        raise ValueError(f"mels: {mels} bands are too many for windows of {size} samples at {rate} Hz; use fewer")
    return bands_MQ
