"""The sets of micrographs on which the ranking of distances was first measured, made anew.

Particles of 80 Gaussians at 4 Å/px under noise that is given in units of the particles' own sd: solvent of twice that
sd through the CTF, shot noise of twice that sd through the falling MTF of a detector. In the sets of
`tests.evaluation.sets` particles are coarser and stand out more at low frequencies.
"""

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from cryogem.evaluation.frames import Frame
from cryogem.imaging.ctf import evaluate_ctf
from cryogem.records import Ctf
from tests.evaluation.sets import draw_photograph
from tests.phantom import GaussianPhantom

PIXEL_SIZE, SIDE, DIAMETER = 4.0, 512, 42.5         # Å/px, px, px
_N_PARTICLES, _BOX = 24, 56                         # of a frame; px
_B_FACTOR = 60.0                                    # Å²
_NOISE = 2.0                                        # sd of solvent and of shot noise, of that of the particles
# amplitudes of solvent and shot noise; 2^0.5 for both halves the signal-to-noise ratio (variances)
_AMPLITUDES = {'same': (1.0, 1.0), 'half_signal': (2 ** 0.5, 2 ** 0.5), 'shot': (1.0, 1.15)}


def make_reference_set(kind: str, seed: int, n: int) -> list[Frame]:
    """Return n micrographs of one kind: those of `_AMPLITUDES`, gaussian, poisson_gaussian, or photographs."""
    phantom = _draw_phantom(np.random.default_rng(7))
    return [_make_frame(kind, phantom, np.random.default_rng((seed, index)), index) for index in range(n)]


def _draw_phantom(rng: np.random.Generator) -> GaussianPhantom:
    """Return 80 Gaussians of 4.5 Å in an ellipsoid of 70 x 52 x 38 Å half axes."""
    directions = rng.standard_normal((80, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    positions = directions * rng.uniform(size=(80, 1)) ** (1 / 3) * np.array([70.0, 52.0, 38.0])
    return GaussianPhantom(positions - positions.mean(axis=0), np.full(80, 4.5), rng.uniform(0.5, 1.5, 80))


def _make_frame(kind: str, phantom: GaussianPhantom, rng: np.random.Generator, index: int) -> Frame:
    density, centers = _draw_density(phantom, rng)
    sd = density[density > 0.05 * density.max()].std()
    defocus = rng.uniform(12000, 22000)
    ctf = Ctf(defocus, defocus - 300, 30.0, b_factor=_B_FACTOR)
    noise = _NOISE * sd * rng.standard_normal((2, SIDE, SIDE))
    if kind == 'photographs':
        noisy = draw_photograph(rng, SIDE)
    elif kind == 'gaussian':
        noisy = noise[0] * 2 ** 0.5 - _through_ctf(density, ctf)
    elif kind == 'poisson_gaussian':
        rate = 6 * np.clip(1 - 0.35 * _through_ctf(density, ctf) / (3 * sd), 0.01, None)
        noisy = rng.poisson(rate) * sd / 2 + 0.8 * noise[0] * 2 ** 0.5
    else:
        solvent, shot = _AMPLITUDES[kind]
        noisy = -_through_ctf(density + solvent * noise[0], ctf) + shot * _through_detector(noise[1])
    image = (noisy - noisy.mean()) / noisy.std()
    return Frame(f'{kind}_{index}', image.astype(np.float32), centers)


def _draw_density(phantom: GaussianPhantom, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the projected density of a frame and the centres of its particles."""
    density, centers = np.zeros((SIDE, SIDE)), []
    while len(centers) < _N_PARTICLES:
        place = rng.integers(_BOX // 2, SIDE - _BOX // 2, 2)
        if all(np.hypot(*(place - one)) > DIAMETER for one in centers):
            centers.append(place)
            window = tuple(slice(one - _BOX // 2, one + _BOX // 2) for one in place)
            density[window] += phantom.project(_BOX, PIXEL_SIZE, Rotation.random(random_state=rng).as_matrix())
    return density, np.array(centers, dtype=float)


def _through_ctf(image: np.ndarray, ctf: Ctf) -> np.ndarray:
    spectrum = torch.fft.rfft2(torch.from_numpy(image)) * evaluate_ctf(ctf, image.shape, PIXEL_SIZE)
    return torch.fft.irfft2(spectrum, s=image.shape).numpy()


def _through_detector(image: np.ndarray) -> np.ndarray:
    """Filter with an MTF that falls from 1 towards 0.35, to 1/e of the way at half of the Nyquist frequency."""
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE))
    return np.fft.irfft2(np.fft.rfft2(image) * (0.35 + 0.65 * np.exp(-(frequency / 0.25) ** 2)), s=image.shape)
