"""How far generated micrographs are from real ones that nothing was measured on, beside what two real halves differ by.

Each set is split by micrograph; one half calibrates, the other judges, and the other way round. Measured noise stands
beside what is left of it without its rings (B), without the background map, without the fit of the amplitude, and
white noise. Every distance is printed with its floor, that of the calibrating real half, and their ratio.

Run: python benchmarks/realism.py [FOLDER ...] [--topaz FOLDER] [--sheet FOLDER]
"""

import argparse
import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import uniform_filter
from scipy.stats import wasserstein_distance

from cryogem.commands.calibrate import estimate_ctfs
from cryogem.commands.inputs import find_pixel_size, read_maps, read_real_micrographs
from cryogem.commands.simulate import build_filtered_ensemble, build_protocol, calibrate_signal
from cryogem.config import SimulateConfig
from cryogem.evaluation.features import (
    compute_frechet_distance,
    extract_features,
    find_topaz_weights,
    load_topaz_network,
)
from cryogem.evaluation.gallery import Exhibit, write_gallery
from cryogem.evaluation.spectra import mean_log_power
from cryogem.imaging.background import add_background
from cryogem.imaging.calibration import Calibration, RealMicrograph, measure_frame_power
from cryogem.imaging.exposure import GENERATED, NOISE, add_ice, draw_record, expose, spawn_generator
from cryogem.imaging.grey import GreyScale, find_good_region, measure_grey_scale
from cryogem.imaging.ice import fit_ice, render_ice
from cryogem.imaging.measurement import calibrate
from cryogem.imaging.noise import add_gaussian_noise
from cryogem.imaging.noise_fit import NoiseModel, measure_rings
from cryogem.imaging.picks import average_rings
from cryogem.imaging.resampling import choose_working_pixel_size
from cryogem.imaging.signal import cut_windows
from cryogem.imaging.spectrum import N_SHELLS
from cryogem.io.files import make_folder
from cryogem.specimen.ensemble import Ensemble
from cryogem.specimen.volume import PreparedVolume, bring_to_pixel_size

_DATA = Path(__file__).parents[1] / '..' / 'shared' / 'data'
_KINDS = ('measured', 'without B', 'without background', 'without amplitude', 'white')
_CROP, _CELL = 256, 16                      # px of the crops for features, and of the cells of local variance
_SAID_RATIO = 0.1                           # signal to noise where the amplitude is not fitted
_SMALL_SET = 6                              # micrographs up to which all ways to halve the set are tried


@dataclasses.dataclass(frozen=True)
class RealSet:
    """A real data set at its working pixel size."""

    config: SimulateConfig
    micrographs: list[RealMicrograph]
    pixel_size: float
    volumes: list[PreparedVolume]
    weights: list[float]

    @property
    def diameter_px(self) -> float:
        """Diameter of the particle, px."""
        return max(one.diameter for one in self.volumes) / self.pixel_size


@dataclasses.dataclass(frozen=True)
class Frame:
    """One micrograph as it is judged: brought to its own contrast units, with its picks."""

    contrast: np.ndarray
    centers_yx: np.ndarray


def main() -> None:
    """Print one table for each set."""
    parser = argparse.ArgumentParser()
    parser.add_argument('folders', nargs='*', type=Path)
    parser.add_argument('--topaz', default='')
    parser.add_argument('--sheet', type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folders = arguments.folders or sorted(one.parent for one in _DATA.glob('*/dataset.json'))
    weights = find_topaz_weights(arguments.topaz)
    network = None if weights is None else load_topaz_network(weights)
    if not folders or network is None:
        print('nothing to judge, or no topaz-em: give folders of data sets and --topaz')
    for folder in folders if network is not None else ():
        print(folder.name, flush=True)
        judge_set(load_set(folder), network, arguments.sheet and arguments.sheet / f'{folder.name}.png')


def load_set(folder: Path) -> RealSet:
    """Read a folder with dataset.json, map, micrographs and coordinates."""
    said = json.loads((folder / 'dataset.json').read_text(encoding='utf-8'))
    config = SimulateConfig(
        output='x', volume=(str(folder / said['map']),), micrographs=(str(folder / 'micrographs' / '*.mrc'),),
        coordinates=(str(folder / 'coordinates' / '*.star'),), voltage=float(said['voltage_kV']),
        spherical_aberration=float(said['cs_mm']), amplitude_contrast=float(said['amplitude_contrast']))
    maps, weights = read_maps(config.volume, None, config)
    pixel_size = choose_working_pixel_size(find_pixel_size(config.micrographs, None), max(m.diameter for m in maps))
    micrographs = estimate_ctfs(read_real_micrographs(config, pixel_size), pixel_size, config)
    return RealSet(config, micrographs, pixel_size, [bring_to_pixel_size(one, pixel_size) for one in maps], weights)


def judge_set(real_set: RealSet, network: Any, sheet: Path | None) -> None:
    """Print the table of one set: means over the halvings."""
    frames = [normalise(one.image, one.centers_yx) for one in real_set.micrographs]
    rows: dict[str, list[dict[str, float]]] = {kind: [] for kind in _KINDS}
    for calibrating, judging in list_halvings(len(frames)):
        known, judges = [frames[i] for i in calibrating], [frames[i] for i in judging]
        floor = measure_distances(known, judges, network, real_set.diameter_px)
        for kind in _KINDS:
            made = make_frames(real_set, [real_set.micrographs[i] for i in calibrating], kind, len(judging))
            found = measure_distances(made, judges, network, real_set.diameter_px)
            rows[kind].append({**found, **{f'{name} floor': value for name, value in floor.items()}})
            if sheet is not None and kind == 'measured':
                make_folder(sheet.parent)
                write_gallery(sheet, [[Exhibit('real', one.contrast, np.empty((0, 2))) for one in judges[:2]],
                                      [Exhibit('generated', one.contrast, np.empty((0, 2))) for one in made[:2]]], 1.0)
    for kind, all_found in rows.items():
        print_row(kind, {name: float(np.mean([one[name] for one in all_found])) for name in all_found[0]})


def list_halvings(n: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Yield (calibrating, judging) micrographs: all halves of a small set, every other micrograph of a larger one."""
    everyone = tuple(range(n))
    halves = itertools.combinations(everyone, n // 2) if n <= _SMALL_SET else iter((everyone[::2], everyone[1::2]))
    for half in halves:
        yield half, tuple(i for i in everyone if i not in half)


def make_frames(real_set: RealSet, known: Sequence[RealMicrograph], kind: str, count: int) -> list[Frame]:
    """Calibrate on some real micrographs and make `count` like them, or like what an ablation leaves of them."""
    diameter = max(one.diameter for one in real_set.volumes)
    calibration = calibrate(known, real_set.pixel_size, diameter)
    protocol = dataclasses.replace(build_protocol(real_set.config, calibration, diameter), purpose=GENERATED)
    ratio = _SAID_RATIO if kind == 'without amplitude' else None
    calibration = calibrate_signal(calibration, protocol, real_set.volumes, real_set.weights, ratio)
    calibration = drop_rings(calibration) if kind == 'without B' else calibration
    ensemble = build_filtered_ensemble(real_set.volumes, real_set.weights, calibration.map_gain)
    return [make_frame(draw_record(protocol, calibration, ensemble, index), calibration, ensemble, kind)
            for index in range(count)]


def make_frame(record: Any, calibration: Calibration, ensemble: Ensemble, kind: str) -> Frame:
    """Make one micrograph; its picks miss the particles as much as those of people were found to."""
    exposure = expose(record, ensemble)
    record, rng = exposure.record, spawn_generator(0, record.index, NOISE)
    image = exposure.clean if kind == 'without background' else add_ice(exposure.clean, record, calibration)
    noisy = add_gaussian_noise(image, _SAID_RATIO, rng) if kind == 'white' else add_background(
        image, record, calibration, rng)
    centers = np.array([one.center_yx for one in record.particles if record.is_pickable(one)]).reshape(-1, 2)
    if calibration.signal is not None and calibration.picks is not None:
        centers = centers - calibration.picks.shift_yx + rng.normal(0, calibration.signal.pick_error, centers.shape)
    return normalise(GreyScale(record.grey_mean, record.grey_sd).restore(noisy), centers)


def drop_rings(calibration: Calibration) -> Calibration:
    """Return the calibration with B · CTF² replaced by its radial mean over the set."""
    rings = measure_rings([one.ctf for one in calibration.micrographs], calibration.pixel_size).mean(axis=0)
    flat = np.array(calibration.noise.flat_power) + np.array(calibration.noise.ring_power) * rings
    return dataclasses.replace(calibration, noise=NoiseModel(tuple(flat.tolist()), (0.0,) * N_SHELLS))


def normalise(image: np.ndarray, centers_yx: np.ndarray) -> Frame:
    """Bring an (h, w) micrograph to its own contrast units, without dead edges."""
    region = find_good_region(image)
    contrast = measure_grey_scale(image).normalise(image)[region]
    moved = np.asarray(centers_yx) - [region[0].start, region[1].start]
    is_inside = ((moved >= 0) & (moved < np.array(contrast.shape))).all(axis=1)
    return Frame(contrast, moved[is_inside])


def measure_distances(
    frames: Sequence[Frame], judges: Sequence[Frame], network: Any, diameter_px: float
) -> dict[str, float]:
    """Return the distances of some frames from those that judge."""
    spectra = [mean_log_power(np.stack([measure_spectrum(one.contrast) for one in some])) for some in (frames, judges)]
    profiles = [measure_profile(some, diameter_px) for some in (frames, judges)]
    return {
        'frechet': compute_frechet_distance(*(measure_features(some, network) for some in (judges, frames))),
        'spectrum': float(np.sqrt(np.mean((spectra[0] - spectra[1])[2:] ** 2))),
        'contrast': float(profiles[0] @ profiles[1] / (profiles[1] @ profiles[1])),
        'profile': float(np.corrcoef(profiles[0], profiles[1])[0, 1]),
        'variance': wasserstein_distance(*(measure_local_variance(some) for some in (frames, judges))),
        'greys': wasserstein_distance(*(np.concatenate([one.contrast.ravel()[::17] for one in some])
                                        for some in (frames, judges)))}


def measure_features(frames: Sequence[Frame], network: Any) -> np.ndarray:
    """Return the features of all crops side by side, each of zero mean and unit sd."""
    crops = [one.contrast[y:y + _CROP, x:x + _CROP] for one in frames
             for y in range(0, one.contrast.shape[0] - _CROP + 1, _CROP)
             for x in range(0, one.contrast.shape[1] - _CROP + 1, _CROP)]
    return extract_features(network, np.stack([(one - one.mean()) / one.std() for one in crops]))


def measure_spectrum(contrast: np.ndarray) -> np.ndarray:
    """Return the (N_SHELLS,) spectrum of a frame without its ice."""
    ice = fit_ice(contrast, np.ones(contrast.shape, dtype=bool))
    return measure_frame_power(contrast - render_ice(ice, contrast.shape))


def measure_profile(frames: Sequence[Frame], diameter_px: float) -> np.ndarray:
    """Return the radial profile of the mean picked particle out to 0.8 diameters."""
    size = 2 * int(np.ceil(diameter_px))
    mean = np.concatenate([cut_windows(one.contrast, one.centers_yx, size) for one in frames]).mean(axis=0)
    return average_rings(mean)[:int(0.8 * diameter_px)]


def measure_local_variance(frames: Sequence[Frame]) -> np.ndarray:
    """Return logarithms of the variance in cells of 16 px."""
    values = []
    for one in frames:
        variance = uniform_filter(one.contrast ** 2, _CELL) - uniform_filter(one.contrast, _CELL) ** 2
        values.append(np.log(np.maximum(variance[_CELL // 2::_CELL, _CELL // 2::_CELL].ravel(), 1e-9)))
    return np.concatenate(values)


def print_row(kind: str, row: dict[str, float]) -> None:
    """Print one line: distances, with their floors and the ratio of both."""
    ratios = '   '.join(f'{name} {row[name]:.4f} / {row[f"{name} floor"]:.4f} = {row[name] / row[f"{name} floor"]:.2f}'
                        for name in ('frechet', 'spectrum', 'variance', 'greys'))
    print(f'  {kind:<20s} {ratios}   particle contrast {row["contrast"]:.3f} (real {row["contrast floor"]:.3f}), '
          f'profile correlation {row["profile"]:.3f} (real {row["profile floor"]:.3f})', flush=True)


if __name__ == '__main__':
    main()
