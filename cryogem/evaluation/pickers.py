"""Pickers that were not trained on our micrographs, and what they find where nothing was placed."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import maximum_filter

from cryogem.evaluation.frames import Frame
from cryogem.evaluation.programs import find_program, run_program
from cryogem.imaging.ice import fit_ice, render_ice
from cryogem.io.files import make_folder
from cryogem.io.mrc import write_image
from cryogem.io.star import read_tables, write_tables
from cryogem.records import Ctf

LOG_PICKER = 'relion_autopick'
_TEMPLATE_SIDE = 1.4                        # diameters
_RESAMPLES = 1000


@dataclass(frozen=True)
class Picks:
    """What a picker found on one micrograph."""

    centers_yx: np.ndarray                  # (n, 2) px
    scores: np.ndarray                      # (n,) higher is surer


@dataclass(frozen=True)
class Hallucinations:
    """How many of the surest picks, as many as there are particles, lie away from every particle."""

    share: float
    low: float                              # 95 % confidence interval, micrographs resampled
    high: float
    n_picks: int


def pick_untrained(frames: Sequence[Frame], diameter_px: float, pixel_size: float) -> tuple[str, list[Picks]]:
    """Pick with RELION where it is installed, else by the mean particle; return which of them it was, and the picks.

    Raises
    ------
    ProgramError : relion_autopick fails.
    """
    if not has_blob_picker():
        return 'the mean particle (RELION is not installed)', pick_by_template(frames, diameter_px)
    with tempfile.TemporaryDirectory(prefix='cryogem_picks_') as folder:
        return 'RELION LoG', pick_blobs(frames, diameter_px, pixel_size, Path(folder))


def pick_by_template(frames: Sequence[Frame], diameter_px: float) -> list[Picks]:
    """Pick what looks like the mean particle at the known places of the set, whatever its in-plane angle.

    The template is the radial mean of the particle, correlated with the micrograph after its spectrum is flattened.
    """
    flattened = [_flatten(one) for one in frames]
    template = _average_particle(flattened, [one.centers_yx for one in frames], diameter_px)
    return [] if template is None else [_find_peaks(_correlate(one, template), diameter_px) for one in flattened]


def pick_blobs(frames: Sequence[Frame], diameter_px: float, pixel_size: float, folder: Path) -> list[Picks]:
    """Pick with RELION's Laplacian of Gaussian, which knows nothing but the diameter (Zivanov et al. 2018).

    Raises
    ------
    ProgramError : relion_autopick fails.
    """
    make_folder(folder)
    names = [f'm{i:05d}' for i in range(len(frames))]
    for name, frame in zip(names, frames, strict=True):
        write_image(folder / f'{name}.mrc', frame.contrast, pixel_size)
    ctf = Ctf(0, 0, 0)
    write_tables(folder / 'micrographs.star', {
        'optics': {'rlnOpticsGroup': [1], 'rlnOpticsGroupName': ['opticsGroup1'], 'rlnVoltage': [ctf.voltage],
                   'rlnSphericalAberration': [ctf.spherical_aberration],
                   'rlnAmplitudeContrast': [ctf.amplitude_contrast], 'rlnMicrographPixelSize': [pixel_size],
                   'rlnMicrographOriginalPixelSize': [pixel_size]},
        'micrographs': {'rlnMicrographName': [f'{name}.mrc' for name in names], 'rlnOpticsGroup': [1] * len(names)}})
    diameter = diameter_px * pixel_size
    run_program([LOG_PICKER, '--i', 'micrographs.star', '--odir', './', '--pickname', 'picks', '--LoG',
                 '--LoG_diam_min', f'{0.85 * diameter:.1f}', '--LoG_diam_max', f'{1.15 * diameter:.1f}', '--shrink',
                 '0', '--lowpass', f'{max(20.0, 2.2 * pixel_size):.1f}', '--LoG_adjust_threshold', '-1'], folder)
    return [_read_blobs(folder / f'{name}_picks.star') for name in names]


def has_blob_picker() -> bool:
    """Say whether RELION's picker is installed."""
    return find_program(LOG_PICKER) is not None


def measure_hallucinations(
    picks: Sequence[Picks], frames: Sequence[Frame], diameter_px: float, rng: np.random.Generator
) -> Hallucinations | None:
    """Count picks away from every painted particle among the surest ones, as many as there are particles.

    A pick is away when its distance to the nearest centre exceeds half a diameter. None without particles or picks.
    """
    n_particles = sum(len(one.centers_yx) for one in frames)
    scores = np.concatenate([one.scores for one in picks]) if picks else np.empty(0)
    if not n_particles or not len(scores):
        return None
    limit = np.sort(scores)[::-1][min(n_particles, len(scores)) - 1]
    counts = np.array([(int(is_away.sum()), len(is_away)) for is_away in (
        find_away(one.centers_yx[one.scores >= limit], frame.painted_yx, diameter_px / 2)
        for one, frame in zip(picks, frames, strict=True))])
    drawn = counts[rng.integers(len(counts), size=(_RESAMPLES, len(counts)))].sum(axis=1)
    low, high = np.percentile(drawn[:, 0] / np.maximum(drawn[:, 1], 1), (2.5, 97.5))
    n_away, n_picks = counts.sum(axis=0)
    return Hallucinations(float(n_away / n_picks), float(low), float(high), int(n_picks))


def find_away(centers_yx: np.ndarray, known_yx: np.ndarray, radius: float) -> np.ndarray:
    """Return (n,) bool: which of the (n, 2) centres lie farther than `radius` px from all of the (m, 2) known ones."""
    if not len(known_yx):
        return np.ones(len(centers_yx), dtype=bool)
    distances = np.linalg.norm(centers_yx[:, None] - known_yx[None], axis=-1)
    return distances.min(axis=1) > radius if len(centers_yx) else np.zeros(0, dtype=bool)


def _read_blobs(path: Path) -> Picks:
    if not path.exists():                   # no picks, no file
        return Picks(np.empty((0, 2)), np.empty(0))
    table = next(one for one in read_tables(path).values() if 'rlnCoordinateX' in one)
    return Picks(table[['rlnCoordinateY', 'rlnCoordinateX']].to_numpy(dtype=float),
                 table['rlnAutopickFigureOfMerit'].to_numpy(dtype=float))


def _flatten(frame: Frame) -> np.ndarray:
    """Return the (h, w) micrograph without ice."""
    everywhere = np.ones(frame.contrast.shape, dtype=bool)
    return frame.contrast - render_ice(fit_ice(frame.contrast, everywhere), frame.contrast.shape)


def _average_particle(
    images: Sequence[np.ndarray], centers: Sequence[np.ndarray], diameter_px: float
) -> np.ndarray | None:
    """Return the (n, n) radial mean of the particles, zero-mean; None where none lies wholly inside a frame."""
    side = 2 * int(np.ceil(_TEMPLATE_SIDE * diameter_px / 2)) + 1
    total, count = np.zeros((side, side)), 0
    for image, places in zip(images, centers, strict=True):
        corners = np.floor(places + 0.5).astype(int) - side // 2
        for y, x in corners:
            if y >= 0 and x >= 0 and y + side <= image.shape[0] and x + side <= image.shape[1]:
                total += image[y:y + side, x:x + side]
                count += 1
    if not count:
        return None
    radius = np.rint(np.hypot(*np.mgrid[:side, :side] - side // 2)).astype(int)
    profile = np.bincount(radius.ravel(), total.ravel()) / np.bincount(radius.ravel()) / count
    is_disc = radius <= side // 2
    template = np.where(is_disc, profile[radius], 0)
    return np.where(is_disc, template - template[is_disc].mean(), 0)


def _correlate(image: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Return the (h, w) correlation of an image with a template, in sd of the map."""
    h, w = image.shape
    side = template.shape[0]
    padded = np.pad(image, side, mode='reflect')
    spectrum = torch.fft.rfft2(torch.from_numpy(np.ascontiguousarray(padded, dtype=np.float32)))
    kernel = torch.fft.rfft2(torch.from_numpy(template.astype(np.float32)), s=padded.shape)
    found = torch.fft.irfft2(spectrum * kernel.conj(), s=padded.shape).numpy()
    low = side - side // 2
    score = found[low:low + h, low:low + w]
    center = np.median(score)
    return (score - center) / max(1.4826 * float(np.median(np.abs(score - center))), 1e-12)


def _find_peaks(score: np.ndarray, diameter_px: float) -> Picks:
    """Return the maxima of an (h, w) map within half a diameter, if above zero."""
    size = 2 * int(diameter_px / 2) + 1
    places = np.argwhere((score == maximum_filter(score, size)) & (score > 0))
    return Picks(places.astype(float), score[tuple(places.T)])
