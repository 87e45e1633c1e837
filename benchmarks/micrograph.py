"""One clean micrograph of 1024² with 97 particles from a 128³ map, and what a micrograph costs beyond it.

The core is projection, placement, pasting and masks. With files, the reference writes what the published code does for
a micrograph (an MRC and six PNG); ours writes the dataset folder's files with their checksums and records.

Run: python benchmarks/micrograph.py
"""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from projection import Phantom
from reference import paste_particles, place_by_search, project_by_rotation, save_published
from timing import print_ratio, time_pair

from cryogem.conventions import euler_to_matrix
from cryogem.dataset.plan import Plan
from cryogem.dataset.writer import write_micrograph
from cryogem.imaging.ctf import evaluate_ctf, find_fft_length, image_specimen
from cryogem.imaging.exposure import Exposure
from cryogem.imaging.noise import draw_field
from cryogem.imaging.spectrum import N_SHELLS
from cryogem.records import Ctf, Micrograph, Particle
from cryogem.specimen.ensemble import Ensemble, build_ensemble
from cryogem.specimen.micrograph import Painting, paint
from cryogem.specimen.orientation import draw_uniform_orientations
from cryogem.specimen.placement import place_particles
from cryogem.specimen.volume import PreparedVolume, resample

_SIDE, _COUNT, _BOX, _FIELD = 1024, 97, 90, 480.0       # px, particles, px, Å
_PIXEL_SIZE = _FIELD / _BOX
_CTF = Ctf(18000.0, 17500.0, 30.0, 300.0, 2.7, 0.1)
_PAIRS = 3


def main() -> None:
    """Print the core, the core with files, and CTF with noise."""
    density = Phantom().sample_map(128, _FIELD / 128)
    ensemble = build_ensemble([prepare(density)], [1.0])
    reference, ours = time_pair(partial(make_reference, density), partial(make_ours, ensemble), _PAIRS)
    print_ratio('core of a clean micrograph', reference, ours, '200')
    with tempfile.TemporaryDirectory() as folder:
        for one in ('micrographs', 'clean', 'masks', 'records', 'coordinates'):
            (Path(folder) / one).mkdir()
        reference, ours = time_pair(partial(write_reference, density, Path(folder)),
                                    partial(write_ours, ensemble, Path(folder)), _PAIRS)
    print_ratio('with all files', reference, ours, '15')
    measure_optics()


def prepare(density: np.ndarray) -> PreparedVolume:
    """Return the map at the pixel size of the micrograph, with a mask where it is bright."""
    resampled = resample(density, _FIELD / 128, _PIXEL_SIZE)
    mask = (resampled > 0.05 * resampled.max()).astype(np.float32)
    return PreparedVolume(resampled, mask, _PIXEL_SIZE, 320.0)


def make_reference(density: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the image and mask of one micrograph, made the published way."""
    rng = np.random.default_rng(0)
    rotations = torch.from_numpy(euler_to_matrix(draw_uniform_orientations(_COUNT, rng))).float()
    images = [project_by_rotation(torch.from_numpy(density), one, _BOX).numpy() for one in rotations]
    return paste_particles((_SIDE, _SIDE), images, place_by_search((_SIDE, _SIDE), _COUNT, 60, rng))


def make_ours(ensemble: Ensemble) -> tuple[tuple[Particle, ...], Painting]:
    """Return the particles and the painted specimen of one micrograph."""
    rng = np.random.default_rng(0)
    centers = place_particles((_SIDE, _SIDE), _COUNT, (60.0,), 0, rng)
    angles = draw_uniform_orientations(len(centers), rng)
    particles = tuple(Particle(i + 1, (float(y), float(x)), 0.0, float(rot), float(tilt), float(psi))
                      for i, ((y, x), (rot, tilt, psi)) in enumerate(zip(centers, angles, strict=True)))
    return particles, paint(ensemble.projectors, particles, (_SIDE, _SIDE), _BOX, 100.0)


def write_reference(density: np.ndarray, folder: Path) -> None:
    """Make and write a micrograph the published way."""
    save_published(folder, *make_reference(density))


def write_ours(ensemble: Ensemble, folder: Path) -> None:
    """Make and write a micrograph with all labels of a dataset folder; imaged too, which the reference is not."""
    particles, painting = make_ours(ensemble)
    record = Micrograph(0, 'one', (_SIDE, _SIDE), _PIXEL_SIZE, _CTF, 0, (False, False), 1.0, 0.0, 1.0, particles)
    clean = image_specimen(painting, _CTF, _PIXEL_SIZE)
    plan = Plan('simulate', 0, 'one', 1, _PIXEL_SIZE, (_SIDE, _SIDE), _BOX, formats=('clean', 'masks', 'png', 'topaz'))
    write_micrograph(folder, Exposure(record, clean, painting.instance_mask), clean, plan)


def measure_optics() -> None:
    """Print CTF, transforms, noise and scaling against the transforms and random numbers alone."""
    side = find_fft_length(_SIDE)
    image, rng = torch.from_numpy(np.random.default_rng(0).standard_normal((side, side), dtype=np.float32)), \
        np.random.default_rng(0)
    painting = Painting(((0.0, image),), 0, np.zeros((side, side), np.int16), np.zeros(0), np.zeros(0))
    power = np.ones(N_SHELLS)

    def bound() -> None:
        torch.fft.irfft2(torch.fft.rfft2(image), s=image.shape)
        torch.fft.irfft2(torch.fft.rfft2(torch.from_numpy(rng.standard_normal(image.shape, dtype=np.float32))))

    def ours() -> None:
        clean = image_specimen(painting, _CTF, _PIXEL_SIZE)
        noisy = clean + draw_field(power, clean.shape, rng)
        (noisy - noisy.mean()) / noisy.std()

    alone, whole = time_pair(bound, ours, 15)
    own, _ = time_pair(lambda: evaluate_ctf(_CTF, (side, side), _PIXEL_SIZE), bound, 15)
    print(f'CTF, noise and scaling of {side}²: two FFT pairs and random numbers alone {alone * 1e3:.1f} ms, ours '
          f'{whole * 1e3:.1f} ms (CTF {own * 1e3:.1f} ms), {whole / alone:.2f} times   goal at most 2')


if __name__ == '__main__':
    main()
