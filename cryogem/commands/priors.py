"""What a generator starts from: a noise-free picture under noise, the same in training and in use."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cryogem.imaging.background import add_background
from cryogem.imaging.calibration import Calibration
from cryogem.imaging.exposure import add_ice
from cryogem.imaging.noise import add_gaussian_noise
from cryogem.records import Micrograph
from cryogem.translation.pairs import SimulatedCrop

_BORDER = 64                                # px of noise drawn beyond a crop: a drawn field joins its own opposite edge


@dataclass(frozen=True)
class PriorRecipe:
    """How the input of a generator is made."""

    noise: str = 'measured'                 # or gaussian, white
    has_ice: bool = True
    snr: float = 0.1                        # of gaussian noise, variances

    @classmethod
    def from_card(cls, description: dict[str, Any], snr: float) -> 'PriorRecipe':
        """Return the recipe that a model was trained with; published ones are given white noise at `snr`."""
        settings = description.get('settings')
        if settings is None:
            return cls('gaussian', snr=snr)
        return cls(settings['input_noise'], settings['ice'], settings['snr'])


MEASURED = PriorRecipe()


def make_prior(
    recipe: PriorRecipe, clean: np.ndarray, record: Micrograph, calibration: Calibration, rng: np.random.Generator,
    strength: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the noisy picture of `clean` (h, w), which holds its ice, and the signal in it; contrast units.

    Parameters
    ----------
    strength : (h, w) of the noise where `clean` is a crop, whose opposite edges must not match; None: a whole frame.
    """
    if recipe.noise == 'gaussian':
        noisy = add_gaussian_noise(clean, recipe.snr, rng)
        # the noisy picture was brought to unit sd, and the signal with it
        sd = float(clean.std()) * np.sqrt(1 + 1 / recipe.snr)
        return noisy, ((clean - clean.mean()) / (sd if sd > 0 else 1.0)).astype(np.float32)
    return add_background(clean, record, calibration, rng, 0 if strength is None else _BORDER, strength), clean


def make_crop(
    recipe: PriorRecipe, clean: np.ndarray, ice: np.ndarray, strength: np.ndarray, mask: np.ndarray,
    record: Micrograph, calibration: Calibration, rng: np.random.Generator,
) -> SimulatedCrop:
    """Return the training crop of a noise-free one (c, c), its ice, the strength of its noise and its mask."""
    prior, signal = make_prior(recipe, clean + ice if recipe.has_ice else clean, record, calibration, rng, strength)
    return SimulatedCrop(prior, mask, signal)


def take_off_ice(image: np.ndarray, record: Micrograph, calibration: Calibration) -> np.ndarray:
    """Return an (h, w) noise-free image without the ice that `add_ice` gave it."""
    return image - add_ice(np.zeros_like(image), record, calibration)
