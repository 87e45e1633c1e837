"""What each part of the noise model is worth: how far made micrographs are from real ones without it."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cryogem.evaluation.features import compute_frechet_distance, extract_features
from cryogem.evaluation.frames import Frame
from cryogem.evaluation.spectra import mean_log_power
from cryogem.imaging.calibration import measure_frame_power
from cryogem.imaging.grey import find_good_region, measure_grey_scale
from cryogem.imaging.ice import fit_ice, render_ice
from cryogem.imaging.picks import average_rings
from cryogem.imaging.signal import cut_windows

DISTANCES = {'frechet': 'Fréchet distance, Topaz features', 'spectrum': 'radial spectrum, rms of log',
             'variance': 'log of local variance, W1', 'greys': 'grey histogram, W1'}
RATIOS = {'contrast': 'contrast of the mean picked particle', 'profile': 'correlation of its radial profile'}
_CROP = 256                                 # px of the crops for features
_GREY_STEP = 17                             # of the pixels that the histogram takes
_PROFILE_DIAMETERS = 0.8                    # to which the profile of the mean particle goes


@dataclass(frozen=True)
class AblationRow:
    """What is left of the noise model, and how far it is from real micrographs: by distance, and for real ones."""

    name: str
    found: dict[str, float]                 # keys of DISTANCES (frechet only with Topaz's weights) and RATIOS
    floor: dict[str, float]                 # the same of the calibrating real micrographs


@dataclass(frozen=True)
class Ablation:
    """The rows of the table and how they were measured."""

    rows: tuple[AblationRow, ...]
    n_real: int                             # real micrographs in all
    n_halvings: int                         # ways in which they were halved; figures are means over these


def bring_to_contrast(name: str, image: np.ndarray, centers_yx: np.ndarray, sign: int = 1) -> Frame:
    """Bring an (h, w) micrograph to its own contrast units, without dead edges and the picks on them.

    Parameters
    ----------
    sign : -1 where particles are bright in grey values, so that they become dark.
    """
    region = find_good_region(image)
    contrast = sign * measure_grey_scale(image, region).normalise(image)[region]
    moved = np.asarray(centers_yx, dtype=np.float64).reshape(-1, 2) - [region[0].start, region[1].start]
    is_inside = ((moved >= 0) & (moved < np.array(contrast.shape))).all(axis=1)
    return Frame(name, contrast, moved[is_inside])


def measure_distances(
    frames: Sequence[Frame], judges: Sequence[Frame], network: Any, diameter_px: float
) -> dict[str, float]:
    """Return the distances of some frames from those that judge, by the keys of DISTANCES and RATIOS.

    Parameters
    ----------
    network : Topaz's, or None: then there is no Fréchet distance.
    """
    # imported here: a tenth of a second at every start of simulate and generate, which hardly ever measure this
    from scipy.stats import wasserstein_distance

    from cryogem.evaluation.statistics import measure_local_variances
    spectra = [mean_log_power(np.stack([_measure_spectrum(one.contrast) for one in some])) for some in (frames, judges)]
    profiles = [measure_profile(some, diameter_px) for some in (frames, judges)]
    found = {}
    if network is not None:
        # the judging ones come first: their spread scales the channels
        found['frechet'] = compute_frechet_distance(*(_measure_features(some, network) for some in (judges, frames)))
    return {
        **found,
        'spectrum': float(np.sqrt(np.mean((spectra[0] - spectra[1])[2:] ** 2))),
        'variance': wasserstein_distance(*(np.concatenate([measure_local_variances(one.contrast) for one in some])
                                           for some in (frames, judges))),
        'greys': wasserstein_distance(*(np.concatenate([one.contrast.ravel()[::_GREY_STEP] for one in some])
                                        for some in (frames, judges))),
        'contrast': float(profiles[0] @ profiles[1] / (profiles[1] @ profiles[1])),
        'profile': float(np.corrcoef(profiles[0], profiles[1])[0, 1])}


def measure_profile(frames: Sequence[Frame], diameter_px: float) -> np.ndarray:
    """Return the radial profile of the mean picked particle out to 0.8 diameters."""
    size = 2 * int(np.ceil(diameter_px))
    mean = np.concatenate([cut_windows(one.contrast, one.centers_yx, size) for one in frames]).mean(axis=0)
    return average_rings(mean)[:int(_PROFILE_DIAMETERS * diameter_px)]


def format_ablation(ablation: Ablation) -> str:
    """Return the table and how it was measured as HTML."""
    keys = [key for key in (*DISTANCES, *RATIOS) if key in ablation.rows[0].found]
    names = {**DISTANCES, **RATIOS}
    head = ''.join(f'<th>{html.escape(names[key])}</th>' for key in keys)
    lines = [f'<tr><td>{html.escape(row.name)}</td>' + ''.join(
        f'<td>{_format_cell(row, key)}</td>' for key in keys) + '</tr>' for row in ablation.rows]
    real = ''.join(f'<td>{ablation.rows[0].floor[key]:.3g}</td>' for key in keys)
    return (f'<table><tr><th>made with</th>{head}</tr>{"".join(lines)}<tr><td>real</td>{real}</tr></table>'
            f'<p>{html.escape(describe_ablation(ablation))}</p>')


def describe_ablation(ablation: Ablation) -> str:
    """Return how the table was measured."""
    topaz = '' if 'frechet' in ablation.rows[0].found else (
        ' Without the weights of Topaz there is no Fréchet distance.')
    return (f'{ablation.n_real} real micrographs in halves: one half calibrates, the other judges what is made like '
            f'the first; means over {ablation.n_halvings} ways. (×n): n times what the real halves differ by. Ratios '
            f'are 1 where the mean particle is that of the judges. Micrographs are made with particles, background and '
            f'noise; no carbon, crystals or dirt are.{topaz}')


def _format_cell(row: AblationRow, key: str) -> str:
    if key in RATIOS:
        return f'{row.found[key]:.3f}'
    floor = row.floor[key]
    return f'{row.found[key]:.3g}' + (f' (×{row.found[key] / floor:.2f})' if floor > 0 else '')


def _measure_features(frames: Sequence[Frame], network: Any) -> np.ndarray:
    """Return the features of all crops side by side, each of zero mean and unit sd."""
    crops = [one.contrast[y:y + _CROP, x:x + _CROP] for one in frames
             for y in range(0, one.contrast.shape[0] - _CROP + 1, _CROP)
             for x in range(0, one.contrast.shape[1] - _CROP + 1, _CROP)]
    return extract_features(network, np.stack([(one - one.mean()) / one.std() for one in crops]))


def _measure_spectrum(contrast: np.ndarray) -> np.ndarray:
    """Return the (N_SHELLS,) spectrum of a frame without its ice."""
    ice = fit_ice(contrast, np.ones(contrast.shape, dtype=bool))
    return measure_frame_power(contrast - render_ice(ice, contrast.shape))
