"""Training crops from disk and fresh from the simulation, and how real micrographs are held out of training."""

import dataclasses
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cryogem.commands.inputs import read_real_image
from cryogem.commands.priors import MEASURED, PriorRecipe, make_crop
from cryogem.dataset.reader import SimulatedDataset
from cryogem.errors import InputError
from cryogem.imaging.background import render_strength
from cryogem.imaging.calibration import Calibration
from cryogem.imaging.exposure import Protocol, draw_record, expose
from cryogem.imaging.grey import GreyScale, find_good_region, measure_grey_scale
from cryogem.imaging.ice import render_ice
from cryogem.imaging.resampling import resample_image
from cryogem.records import Micrograph
from cryogem.specimen.ensemble import Ensemble
from cryogem.translation.pairs import SimulatedCrop

_CACHE = 256 << 20                          # bytes of frames held in memory, of each kind and in each process
_LEAST_WHOLE = 5                            # micrographs from which on whole ones are held out


class _Picklable:
    """Goes to worker processes without what it has cached."""

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in ('_load', 'ensemble')}


class SimulatedCrops(_Picklable):
    """Crops of simulated micrographs under fresh noise, with their masks; read from disk as they are drawn."""

    def __init__(self, dataset: SimulatedDataset, crop_size: int, recipe: PriorRecipe = MEASURED):
        self._dataset, self._names, self._recipe = dataset, dataset.manifest['micrographs'], recipe
        check_crop(dataset.calibration.shape, crop_size, 'simulated micrographs')

    def draw(self, rng: np.random.Generator, crop_size: int) -> SimulatedCrop:
        """Return one crop of side `crop_size` px."""
        clean, mask, record = self._load(self._names[rng.integers(len(self._names))])
        window = draw_window(clean.shape, crop_size, rng)
        ice, strength = render_place(record, self._dataset.calibration, clean.shape, window)
        return make_crop(self._recipe, clean[window], ice, strength, mask[window], record, self._dataset.calibration,
                         rng)

    @cached_property
    def _load(self) -> Any:
        return lru_cache(_count_frames(self._dataset.calibration.shape))(self._read)

    def _read(self, name: str) -> tuple:
        clean, mask = self._dataset.read_pair(name)
        return clean, mask, self._dataset.read_record(name)


class FreshCrops(_Picklable):
    """Crops of micrographs that are simulated as they are drawn: no particle is ever seen twice.

    Only what lies on the crop is simulated, at the density of whole frames, so a crop costs what its area costs.
    """

    def __init__(self, dataset: SimulatedDataset, protocol: Protocol, crop_size: int,
                 recipe: PriorRecipe = MEASURED):
        check_crop(dataset.calibration.shape, crop_size, 'simulated micrographs')
        self._dataset, self._recipe = dataset, recipe
        height, width = dataset.calibration.shape
        share = crop_size ** 2 / (height * width)
        mean, sd = protocol.particles_per_frame
        # a part of a frame holds a share of its particles, and chance decides which
        spread = float(np.sqrt((sd * share) ** 2 + mean * share * (1 - share)))
        self._protocol = dataclasses.replace(protocol, particles_per_frame=(mean * share, spread), forbidden=())
        self._calibration = dataclasses.replace(dataset.calibration, shape=(crop_size, crop_size))

    def draw(self, rng: np.random.Generator, crop_size: int) -> SimulatedCrop:
        """Return one crop of side `crop_size` px, that which the object was made for."""
        return self.draw_labelled(rng, crop_size)[0]

    def draw_labelled(self, rng: np.random.Generator, crop_size: int) -> tuple[SimulatedCrop, Micrograph]:
        """Return one crop as `draw` does, and the record of it."""
        number = int(rng.integers(2 ** 62))
        record = draw_record(self._protocol, self._calibration, self.ensemble, number)
        exposure = expose(record, self.ensemble, self._protocol.defocus_error, self._calibration)
        frame = self._dataset.calibration.shape
        ice, strength = render_place(record, self._calibration, frame, draw_window(frame, crop_size, rng))
        crop = make_crop(self._recipe, exposure.clean, ice, strength, exposure.instance_mask > 0, record,
                         self._calibration, rng)
        return crop, exposure.record

    @cached_property
    def ensemble(self) -> Ensemble:
        """The maps, read once in each process."""
        return self._dataset.load_ensemble()


class RealCrops(_Picklable):
    """Crops of real micrographs in contrast units; read from disk as they are drawn.

    Parameters
    ----------
    part : which columns of each micrograph may be seen, as shares of its width.
    """

    def __init__(self, files: list[Path], pixel_size: float | None, calibration: Calibration,
                 part: tuple[float, float] = (0.0, 1.0)):
        self.files, self._pixel_size, self._part = files, pixel_size, part
        self._calibration = calibration
        self._sign = -1 if calibration.micrographs[0].grey_sd < 0 else 1

    def check(self, crop_size: int) -> None:
        """Refuse crops that do not fit the first micrograph, before any work."""
        check_crop(self.shape, crop_size, f'micrograph {str(self.files[0])!r}')

    @property
    def n_micrographs(self) -> int:
        """Number of micrographs the crops come from."""
        return len(self.files)

    @property
    def shape(self) -> tuple[int, int]:
        """The (h, w) px of the first micrograph, of the part that may be seen."""
        return self._load(0).shape

    def draw(self, rng: np.random.Generator, crop_size: int) -> np.ndarray:
        """Return (c, c) float32, contrast units, dark particles."""
        return self.draw_from(int(rng.integers(len(self.files))), rng, crop_size)

    def draw_from(self, index: int, rng: np.random.Generator, crop_size: int) -> np.ndarray:
        """Return (c, c) of one micrograph, as `draw` does."""
        image = self._load(index)
        check_crop(image.shape, crop_size, f'micrograph {str(self.files[index])!r}')
        return image[draw_window(image.shape, crop_size, rng)]

    @cached_property
    def _load(self) -> Any:
        return lru_cache(_count_frames(self._calibration.shape))(self._read)

    def _read(self, index: int) -> np.ndarray:
        image, pixel_size = read_real_image(self.files[index], self._pixel_size)
        image = resample_image(image, pixel_size, self._calibration.pixel_size)
        scale = measure_grey_scale(image)
        image = GreyScale(scale.mean, self._sign * scale.sd).normalise(image[find_good_region(image)])
        first, last = (round(share * image.shape[1]) for share in self._part)
        return image[:, first:last]


@dataclasses.dataclass(frozen=True)
class Split:
    """Which real micrographs are learned from and which are held out."""

    train: list[Path]
    held_out: list[Path]
    train_part: tuple[float, float] = (0.0, 1.0)        # columns, as shares of the width
    held_out_part: tuple[float, float] = (0.0, 1.0)


def split_micrographs(files: list[Path], share: float, least_whole: int = _LEAST_WHOLE) -> Split | None:
    """Hold a share of the real micrographs out: whole ones, evenly spread, or when they are few a strip of each.

    Parameters
    ----------
    least_whole : number of micrographs from which on whole ones are held out.

    Returns
    -------
    None when nothing is to be held out.
    """
    if share <= 0:
        return None
    if len(files) < least_whole:
        return Split(files, files, (0.0, 1 - share), (1 - share, 1.0))
    count = max(1, round(share * len(files)))
    chosen = {int((i + 0.5) * len(files) / count) for i in range(count)}
    return Split([one for i, one in enumerate(files) if i not in chosen], [files[i] for i in sorted(chosen)])


def render_place(
    record: Micrograph, calibration: Calibration, frame: tuple[int, ...], window: tuple[slice, slice]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the (c, c) ice, contrast units, and strength of the noise of a crop that lies there in an (h, w) frame."""
    ice = render_ice(np.array(calibration.micrographs[record.source].ice), frame, record.ice_flips, window)
    return ice, render_strength(record, calibration, frame, window)


def draw_window(shape: tuple[int, ...], crop_size: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """Draw where a square crop lies in a frame."""
    y, x = (int(rng.integers(length - crop_size + 1)) for length in shape)
    return slice(y, y + crop_size), slice(x, x + crop_size)


def check_crop(shape: tuple[int, ...], crop_size: int, what: str) -> None:
    """Refuse crops larger than a frame.

    Raises
    ------
    InputError : with the largest crop that fits.
    """
    if min(shape) < crop_size:
        raise InputError(f'crop_size {crop_size} is larger than the {what} of {shape[1]} x {shape[0]} px; '
                         f'use at most {min(shape) // 16 * 16}')


def _count_frames(shape: tuple[int, ...]) -> int:
    """Return how many frames are held in memory, at least 2."""
    return max(2, _CACHE // (4 * shape[0] * shape[1]))
