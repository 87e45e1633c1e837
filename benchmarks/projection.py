"""Projection: ours against the published computation, with errors against the analytic projection.

The bound is that of eight taps for each of the frequencies inside the Nyquist circle, all in cache, and the transform
back: on two quiet cores of the machine that the goals were set on, 26 µs for 90² and 53 µs for 128². The same work
on a transform that is not oversampled, which caches hold, shows what of the distance the memory is to blame for.

Run: python benchmarks/projection.py
"""

import sys
from functools import partial

import numpy as np
import torch
from reference import project_by_rotation
from timing import print_ratio, time_pair

from cryogem.conventions import euler_to_matrix
from cryogem.specimen.orientation import draw_uniform_orientations
from cryogem.specimen.projection import Projector, choose_oversampling
from cryogem.specimen.volume import resample

_FIELD = 480.0                              # Å, side of the map at every sampling
_N_ORIENTATIONS = 64
_BATCH = 512                                # projections per call of ours
# side of the map and box (px), goal, allowed error (%), bound (s)
CASES = ((128, 90, 400, 1.9, 26e-6), (90, 90, 200, 3.8, 26e-6), (256, 128, 300, 0.48, 53e-6))


class Phantom:
    """A sum of Gaussians whose maps and projections are known exactly."""

    def __init__(self, seed: int = 0, n: int = 90, radius: float = 150.0, sigma: float = 9.0):
        rng = np.random.default_rng(seed)
        directions = rng.normal(size=(n, 3))
        self._centers = directions / np.linalg.norm(directions, axis=1)[:, None] * radius * rng.uniform(size=(n, 1))
        self._weights, self._sigma = rng.uniform(0.5, 1.5, n), sigma

    def sample_map(self, box_size: int, pixel_size: float) -> np.ndarray:
        """Return the (n, n, n) map."""
        grid = (np.arange(box_size) - box_size // 2) * pixel_size
        x, y, z = (np.exp(-(grid - one[:, None]) ** 2 / 2 / self._sigma ** 2) for one in self._centers.T)
        return np.einsum('k,kz,ky,kx->zyx', self._weights, z, y, x, optimize=True).astype(np.float32)

    def project(self, rotation: np.ndarray, box_size: int, pixel_size: float) -> np.ndarray:
        """Return the (n, n) exact line integrals, density times px."""
        grid = (np.arange(box_size) - box_size // 2) * pixel_size
        x, y, _ = (self._centers @ rotation.T).T
        x, y = (np.exp(-(grid - one[:, None]) ** 2 / 2 / self._sigma ** 2) for one in (x, y))
        depth = self._sigma * np.sqrt(2 * np.pi) / pixel_size
        return np.einsum('k,ky,kx->yx', self._weights * depth, y, x, optimize=True)


def main() -> None:
    """Print three lines for each case."""
    phantom = Phantom()
    rotations = euler_to_matrix(draw_uniform_orientations(_BATCH, np.random.default_rng(1)))
    for n, box_size, goal, allowed, bound in CASES:
        density = phantom.sample_map(n, _FIELD / n)
        pixel_size = _FIELD / box_size
        exact = [phantom.project(one, box_size, pixel_size) for one in rotations[:_N_ORIENTATIONS]]
        volume = torch.from_numpy(density)
        resampled = torch.from_numpy(resample(density, _FIELD / n, pixel_size))
        theirs = [project_by_rotation(volume, torch.from_numpy(one).float(), box_size).numpy()
                  for one in rotations[:8]]
        oversampling = choose_oversampling(box_size, 2)     # of a map and its mask, as in a run
        projector = Projector(resampled[None], oversampling)
        turns, shifts = torch.from_numpy(rotations), torch.zeros(_BATCH, 2)
        ours = projector.project(turns, shifts)[:, 0].numpy()
        reference, mine = time_pair(partial(project_by_rotation, volume, turns[0].float(), box_size),
                                    partial(projector.project, turns, shifts), 9)
        print_ratio(f'{n}³ to {box_size}²', reference, mine / _BATCH, str(goal))
        coarse = Projector(resampled[None], 1)
        cached, mine = time_pair(partial(coarse.project, turns, shifts), partial(projector.project, turns, shifts), 9)
        print(f'    ours {mine / _BATCH * 1e6:.0f} µs, in cache {cached / _BATCH * 1e6:.0f} µs, '
              f'bound {bound * 1e6:.0f} µs: {mine / _BATCH / bound:.1f} times   goal at most 4')
        print(f'    error: reference {100 * _measure_error(theirs, exact):.2f} %, '
              f'ours {100 * _measure_error(ours, exact):.2f} % (oversampling {oversampling}), allowed {allowed} %')
    sys.stdout.flush()


def _measure_error(images: np.ndarray | list, exact: list[np.ndarray]) -> float:
    """Return the rms error of images, each scaled to fit best, relative to the rms of the exact projections."""
    errors = []
    for image, truth in zip(images, exact, strict=False):
        scaled = image * ((image * truth).sum() / (image ** 2).sum())
        errors.append(((scaled - truth) ** 2).sum() / (truth ** 2).sum())
    return float(np.sqrt(np.mean(errors)))


if __name__ == '__main__':
    main()
