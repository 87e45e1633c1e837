"""Sets of micrographs whose nearness is known: the ranking every distance must reproduce."""

import dataclasses

import numpy as np
import torch

from cryogem.evaluation.frames import Frame
from cryogem.imaging.ctf import evaluate_ctf
from cryogem.imaging.noise import add_poisson_gaussian_noise, draw_field
from cryogem.imaging.spectrum import N_SHELLS
from cryogem.records import Ctf, Micrograph, Particle

PIXEL_SIZE, SIDE, DIAMETER = 5.0, 320, 24.0             # Å/px, px, px
N = 8                                       # micrographs of a set
_SHELLS = np.arange(N_SHELLS)
_SHOT = 0.2 + 0.2 * np.exp(-_SHELLS / 60)   # power of shot noise that a detector has softened
_ICE = 3.0 * np.exp(-_SHELLS / 8)           # power of ice gradients
_N_PARTICLES = 7
_SIGNAL = 0.12                              # sd of the clean image; noise has about 0.9


def make_set(kind: str, seed: int, n: int = N) -> list[Frame]:
    """Return micrographs of one kind, with records and clean twins.

    same: particles and solvent through the CTF, shot noise; half_signal: half the variance of the signal; shot: shot
    noise of 1.15 times the amplitude; gaussian, poisson_gaussian: the particles under white noise; photographs: walls.
    """
    return [_make_frame(kind, np.random.default_rng((seed, i)), i) for i in range(n)]


def _make_frame(kind: str, rng: np.random.Generator, index: int) -> Frame:
    defocus = rng.uniform(16000, 17500)
    ctf = Ctf(defocus, defocus, 0.0)
    particles, density = _draw_particles(rng)
    clean = -_through_ctf(density, ctf)
    clean *= _SIGNAL / clean.std()
    solvent = _through_ctf(rng.standard_normal((SIDE, SIDE)), ctf) * 0.8
    ice = draw_field(_ICE, (SIDE, SIDE), rng)
    if kind == 'half_signal':
        clean = clean * np.sqrt(0.5)
    if kind == 'gaussian':
        noisy = clean + rng.standard_normal((SIDE, SIDE)) * 0.85
    elif kind == 'poisson_gaussian':
        noisy = add_poisson_gaussian_noise(clean.astype(np.float32), 500.0, 0.02, rng)
    elif kind == 'photographs':
        noisy = draw_photograph(rng)
    else:
        noisy = clean + solvent + ice + draw_field(_SHOT, (SIDE, SIDE), rng) * (1.15 if kind == 'shot' else 1.0)
    sd = float(noisy.std())
    record = Micrograph(index, f'{kind}_{index}', (SIDE, SIDE), PIXEL_SIZE, ctf, 0, (False, False), 1.0, 0.0, sd,
                        particles)
    centers = np.array([one.center_yx for one in particles])
    return Frame(record.name, ((noisy - noisy.mean()) / sd).astype(np.float32), centers, record,
                 (clean / sd).astype(np.float32))


def _draw_particles(rng: np.random.Generator) -> tuple[tuple[Particle, ...], np.ndarray]:
    """Place blobs of three lumps each on the frame."""
    y, x = np.mgrid[:SIDE, :SIDE]
    density, centers = np.zeros((SIDE, SIDE)), []
    while len(centers) < _N_PARTICLES:
        place = rng.uniform(DIAMETER, SIDE - DIAMETER, 2)
        if all(np.hypot(*(place - one)) > 1.4 * DIAMETER for one in centers):
            centers.append(place)
    for cy, cx in centers:
        for turn in rng.uniform(0, 2 * np.pi) + np.array([0, 2.2, 4.1]):
            ly, lx = cy + 6 * np.sin(turn), cx + 6 * np.cos(turn)
            density += np.exp(-((y - ly) ** 2 + (x - lx) ** 2) / (2 * 3.5 ** 2))
    particles = tuple(Particle(i + 1, (float(cy), float(cx)), 0.0, *rng.uniform(0, 180, 3))
                      for i, (cy, cx) in enumerate(centers))
    return particles, density


def _through_ctf(image: np.ndarray, ctf: Ctf) -> np.ndarray:
    spectrum = torch.fft.rfft2(torch.from_numpy(image.astype(np.float32))) * evaluate_ctf(ctf, image.shape, PIXEL_SIZE)
    return torch.fft.irfft2(spectrum, s=image.shape).numpy()


def draw_photograph(rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """Return rectangles of flat colour with sharp edges, as of walls and windows."""
    picture = np.zeros((side, side))
    for _ in range(60):
        y, x = rng.integers(side, size=2)
        h, w = rng.integers(10, 120, size=2)
        picture[y:y + h, x:x + w] = rng.normal()
    return picture + 0.02 * rng.standard_normal((side, side))


def replace_frame(frames: list[Frame], index: int, **changes) -> list[Frame]:
    """Return the set with one of its frames changed."""
    return [dataclasses.replace(one, **changes) if i == index else one for i, one in enumerate(frames)]
