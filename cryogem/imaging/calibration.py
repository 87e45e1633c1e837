"""What is known about the user's micrographs: the numbers of calibration.json."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from cryogem.errors import InputError
from cryogem.imaging.grey import GreyDefects, find_good_region
from cryogem.imaging.noise_fit import NoiseModel
from cryogem.imaging.picks import PickCheck
from cryogem.imaging.signal import SignalMeasurement
from cryogem.imaging.signal_fit import SignalQuality
from cryogem.imaging.spectrum import hann_window, measure_power
from cryogem.records import Ctf

_UNITS = {
    'pixel_size': 'Å/px', 'shape': 'px (h, w)', 'particle_diameter': 'Å', 'particles_per_frame': 'mean, sd',
    'neighbour_distances': 'Å', 'picks_yx': 'px', 'power': 'contrast units² per px, shell i at i / shells of the '
    'Nyquist frequency', 'original_power': 'contrast units² per original px, shell i at i / shells of the original '
    'Nyquist frequency', 'signal_scale': 'contrast units per unit of density times px', 'pick_error': 'px',
    'b_factor': 'Å²', 'grey_sd': 'grey values per contrast unit', 'shift_yx': 'px', 'profile': 'contrast units, '
    'ring i at i px', 'variance_slope': 'logarithm of the noise variance per contrast unit'}


@dataclass(frozen=True)
class RealMicrograph:
    """One real micrograph at the working pixel size, as it is measured."""

    name: str
    image: np.ndarray                       # (h, w) float32, grey values
    centers_yx: np.ndarray                  # (n, 2) picks, px
    ctf: Ctf | None = None
    original_power: np.ndarray | None = None            # (N_SHELLS,) grey values² per px, before binning
    original_shape: tuple[int, int] | None = None       # (h, w) px, before binning


@dataclass(frozen=True)
class MicrographCalibration:
    """What was measured on one real micrograph. Spectra are powers per pixel on shells up to the Nyquist frequency."""

    name: str
    grey_mean: float                        # grey value of contrast 0
    grey_sd: float                          # grey values per contrast unit; negative where particles are bright
    n_picks: int
    ice: tuple[tuple[float, ...], ...]      # cosine coefficients of the background, contrast units
    total_power: tuple[float, ...]          # spectrum of the whole frame without ice and dirt
    background_power: tuple[float, ...]     # spectrum outside the picked particles
    noise_power: tuple[float, ...]          # what the noise model was fitted to: of the frame, less the known signal
    noise_level: float = 1.0                # power of its noise over that of the set
    noise_slope: float = 0.0                # logarithm of the same at the Nyquist frequency, less that at zero
    ctf: Ctf | None = None
    signal_scale: float | None = None       # its own: thick ice shows particles fainter than thin ice
    signal_error: float | None = None       # standard error of the same
    shape: tuple[int, int] | None = None    # (h, w) px
    picks_yx: tuple[tuple[float, float], ...] = ()      # px
    signal: SignalMeasurement | None = None             # what comes with the picks; None without picks
    defects: GreyDefects | None = None      # hot pixels, dead edges, grey levels
    n_unmarked: int = 0                     # particles that nobody marked, estimated, clear of the border
    outlier_share: float = 0.0              # of the frame that is carbon, crystals or dirt
    transmission: tuple[tuple[float, ...], ...] = ()    # ice of the published code, in place of `ice`: multiplied
    noise_map: tuple[tuple[float, ...], ...] = ()       # cosine coefficients of the logarithm of the noise's sd
    noise_skewness: float = 0.0             # of the pixels outside particles: counting has rare bright ones
    weight: float = 1.0                     # how much it counts, and how often it is drawn; below 1 where it is odd
    remarks: tuple[str, ...] = ()           # in what it is odd


@dataclass(frozen=True)
class Calibration:
    """What was measured on a set of real micrographs."""

    pixel_size: float                       # Å/px at which all was measured
    shape: tuple[int, int]                  # (h, w) of most frames, px
    particle_diameter: float                # Å
    particles_per_frame: tuple[float, float] | None     # mean, sd over the frames, scaled to `shape`
    neighbour_distances: tuple[float, ...] | None       # Å, even quantiles of what particles keep from each other
    clustering: float | None                # share of the particles that lie beside another one
    signal_scale: float | None              # contrast units per unit of projected density, once a map is known
    map_gain: tuple[float, ...] | None      # amplitude filter of the maps on shells up to the Nyquist frequency
    noise: NoiseModel                       # what measured noise is drawn from, with level and slope of a micrograph
    micrographs: tuple[MicrographCalibration, ...]
    picks: PickCheck | None = None          # whether picks sit on particles
    signal: SignalQuality | None = None     # how well the signal is known, once a map is known
    variance_slope: float = 0.0             # d log(noise variance) / d contrast: brighter places are noisier
    original_pixel_size: float | None = None            # Å/px of the files
    original_shape: tuple[int, int] | None = None       # (h, w) of most files, px
    original_noise: NoiseModel | None = None            # noise of the files up to *their* Nyquist frequency
    original_power: tuple[float, ...] | None = None     # mean spectrum of the files up to *their* Nyquist frequency

    def to_json(self) -> dict[str, Any]:
        """Return all numbers as plain JSON values, with their units and a summary of the micrographs."""
        return {'units': _UNITS, 'summary': summarise(self), **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> 'Calibration':
        """Rebuild a calibration from `to_json` values read back from a file.

        Raises
        ------
        InputError : keys are missing or unknown.
        """
        try:
            rest = {key: _as_tuple(value) for key, value in values.items() if key not in ('units', 'summary')}
            parts = {key: _rebuild(kind, values.get(key))
                     for key, kind in (('noise', NoiseModel), ('original_noise', NoiseModel), ('picks', PickCheck),
                                       ('signal', SignalQuality))}
            micrographs = tuple(_rebuild_micrograph(one) for one in values['micrographs'])
            return cls(**{**rest, **parts, 'micrographs': micrographs})
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f'calibration is damaged or of another version ({error}); run calibrate again') from error


def summarise(calibration: Calibration) -> dict[str, Any]:
    """Return means and spreads over the micrographs, as a person wants to read them."""
    micrographs = calibration.micrographs
    defects = [one.defects for one in micrographs if one.defects is not None]
    defoci = [(one.ctf.defocus_u + one.ctf.defocus_v) / 2 for one in micrographs if one.ctf is not None]
    return {
        'n_micrographs': len(micrographs), 'n_picks': sum(one.n_picks for one in micrographs),
        'n_unmarked': sum(one.n_unmarked for one in micrographs),
        'empty_share': float(np.mean([one.n_picks == 0 for one in micrographs])),
        'grey_mean': _spread([one.grey_mean for one in micrographs]),
        'grey_sd': _spread([one.grey_sd for one in micrographs]),
        'hot_pixel_share': _spread([one.hot_pixel_share for one in defects]),
        'dead_rows': _spread([one.dead_rows for one in defects]),
        'dead_columns': _spread([one.dead_columns for one in defects]),
        'outlier_share': _spread([one.outlier_share for one in micrographs]),
        'noise_level': _spread([one.noise_level for one in micrographs]),
        'noise_slope': _spread([one.noise_slope for one in micrographs]),
        'defocus': _spread(defoci), 'odd_micrographs': {one.name: one.remarks for one in micrographs if one.remarks}}


def measure_frame_power(contrast: np.ndarray, is_good: np.ndarray | None = None) -> np.ndarray:
    """Return the (N_SHELLS,) spectrum of an (h, w) frame: of what `is_good` leaves, else without its dead edges."""
    if is_good is None:
        return measure_power(contrast[find_good_region(contrast)])
    rows, columns = (np.flatnonzero(is_good.any(axis=axis)) for axis in (1, 0))
    region = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return measure_power(contrast[region], hann_window(contrast[region].shape) * is_good[region])


def _spread(values: list[float]) -> dict[str, float] | None:
    """Return mean, sd, least and largest of values; None for none."""
    if not values:
        return None
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {'mean': float(np.mean(values)), 'sd': sd, 'least': float(min(values)), 'largest': float(max(values))}


def _rebuild_micrograph(values: dict[str, Any]) -> MicrographCalibration:
    parts = {'ctf': Ctf(**values['ctf']) if values['ctf'] else None,
             'signal': _rebuild(SignalMeasurement, values.get('signal')),
             'defects': _rebuild(GreyDefects, values.get('defects'))}
    return MicrographCalibration(**{**{key: _as_tuple(value) for key, value in values.items()}, **parts})


def _rebuild(kind: Any, values: dict[str, Any] | None) -> Any:
    return None if values is None else kind(**{key: _as_tuple(value) for key, value in values.items()})


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(one) for one in value) if isinstance(value, list) else value

