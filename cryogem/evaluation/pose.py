"""Pose proof: an independent program, given nothing but the map, finds the labelled poses of generated particles."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from cryogem.conventions import euler_to_matrix
from cryogem.dataset import layout
from cryogem.dataset.exchange import write_cryodrgn
from cryogem.dataset.stacks import normalise_to_ring
from cryogem.dataset.tables import build_optics, build_particles, name_images, number_optics, select_particles
from cryogem.evaluation.frames import Frame
from cryogem.evaluation.programs import find_program, run_program
from cryogem.io.files import make_folder
from cryogem.io.mrc import read_own_volume, read_volume, write_stack, write_volume
from cryogem.io.star import read_tables, write_tables
from cryogem.records import Micrograph

ALIGNER, RECONSTRUCTOR = 'relion_refine', 'relion_reconstruct'
PARTICLES, STACK, MAP = 'particles.star', 'particles.mrcs', 'reference.mrc'
_ANGLES = ['rlnAngleRot', 'rlnAngleTilt', 'rlnAnglePsi']
_ORIGINS = ['rlnOriginXAngst', 'rlnOriginYAngst']
_CHANCE_DRAWS = 20                          # random poses per particle for the chance level


@dataclass(frozen=True)
class PoseErrors:
    """How far found poses lie from the labels."""

    median: float                           # degrees, geodesic, modulo symmetry
    share_within_10: float                  # of the particles
    origin_median: float | None             # Å
    chance: float                           # degrees, median error of random poses
    n_particles: int


@dataclass(frozen=True)
class Reconstruction:
    """The map rebuilt from labels against the map that was projected."""

    resolution: float                       # Å, where the Fourier shell correlation falls below 0.5
    correlation: float                      # mean over the shells to half the Nyquist frequency
    mirrored: float                         # the same with the mirror image: lower, or the hand is wrong
    n_particles: int


def has_program(name: str) -> bool:
    """Say whether a program of RELION is installed."""
    return find_program(name) is not None


def export_particles(
    folder: Path, frames: Sequence[Frame], source: Path, box_size: int, limit: int | None = None
) -> int:
    """Write a folder that RELION, CryoPARES and cryoDRGN read as it is.

    It holds particles.star (poses, CTFs, origins, half sets), particles.mrcs (bright, normalised as RELION does),
    poses.pkl and ctf.pkl for cryoDRGN, and reference.mrc, the first map in a box of the particles.

    Parameters
    ----------
    source : folder of the generated set, for its map.
    box_size : px, even.
    limit : take micrographs until they hold this many particles; None takes all.

    Returns
    -------
    The number of particles.
    """
    make_folder(folder)
    records: list[Micrograph] = []
    images: list[np.ndarray] = []
    for frame in frames:
        if frame.record is None or (limit is not None and len(images) >= limit):
            continue
        records.append(frame.record)
        images += cut_particles(frame, box_size)
    if images:
        optics = number_optics(records)
        table = build_particles(records, optics) | name_images(len(images), 1, STACK)
        pixel_size = records[0].pixel_size
        write_tables(folder / PARTICLES, {'optics': build_optics(optics, pixel_size, box_size), 'particles': table})
        write_stack(folder / STACK, np.stack(images), pixel_size)
        write_cryodrgn(folder / layout.POSES_PICKLE, folder / layout.CTF_PICKLE, records, len(images), box_size)
    density, pixel_size = read_own_volume(layout.volume_path(source, 0))
    write_volume(folder / MAP, fit_to_box(density, box_size), pixel_size)
    return len(images)


def cut_particles(frame: Frame, box_size: int) -> list[np.ndarray]:
    """Cut the pickable particles of a generated micrograph: bright, zero mean and unit sd in the ring around them."""
    if frame.record is None:
        return []
    padded = np.pad(-frame.contrast, box_size // 2, mode='edge')
    corners = [one.coordinate_xy for one in select_particles(frame.record)]
    is_ring = np.hypot(*np.mgrid[:box_size, :box_size] - box_size // 2) > 0.375 * box_size
    return [normalise_to_ring(padded[y:y + box_size, x:x + box_size], is_ring) for x, y in corners]


def fit_to_box(density: np.ndarray, box_size: int) -> np.ndarray:
    """Pad with zeros or crop a cubic map about its centre to a box of `box_size` px."""
    for axis in range(3):
        before = box_size // 2 - density.shape[axis] // 2
        after = box_size - density.shape[axis] - before
        if before < 0 or after < 0:
            kept = slice(max(0, -before), density.shape[axis] - max(0, -after))
            density = density[tuple(kept if i == axis else slice(None) for i in range(3))]
        density = np.pad(density, [(max(0, before), max(0, after)) if i == axis else (0, 0) for i in range(3)])
    return density


def measure_pose_errors(found: np.ndarray, labels: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return (n,) geodesic distances, degrees, of (n, 3, 3) rotations to (n, 3, 3) labels, modulo a point group.

    Parameters
    ----------
    group : (m, 3, 3) rotations that leave the map unchanged.
    """
    # trace((A g)ᵀ B) = trace(gᵀ AᵀB): the nearest of the equivalent labels counts
    relative = np.swapaxes(labels, 1, 2) @ found
    traces = np.einsum('mij,nij->nm', group, relative).max(axis=1)
    return np.rad2deg(np.arccos(np.clip((traces - 1) / 2, -1, 1)))


def measure_chance(labels: np.ndarray, group: np.ndarray, rng: np.random.Generator) -> float:
    """Return the median error, degrees, of poses drawn at random."""
    repeated = np.repeat(labels, _CHANCE_DRAWS, axis=0)
    random = Rotation.random(len(repeated), random_state=int(rng.integers(2 ** 31))).as_matrix()
    return float(np.median(measure_pose_errors(random, repeated, group)))


def align_with_relion(
    folder: Path, symmetry: str, group: np.ndarray, particle_diameter: float, rng: np.random.Generator
) -> PoseErrors:
    """Let RELION align the particles of an exported folder to the map, blind to the labels, and measure its errors.

    One iteration against the map low-passed to three pixels, angles every 7.5 degrees, origins within five pixels.

    Raises
    ------
    ProgramError : relion_refine fails.
    """
    tables = read_tables(folder / PARTICLES)
    rows, optics = tables['particles'], tables['optics']
    blind = rows[['rlnImageName', 'rlnMicrographName', 'rlnOpticsGroup', 'rlnDefocusU', 'rlnDefocusV',
                  'rlnDefocusAngle', 'rlnPhaseShift']]
    write_tables(folder / 'blind.star', {'optics': optics.to_dict('list'), 'particles': blind.to_dict('list')})
    pixel_size = float(optics['rlnImagePixelSize'].iloc[0])
    make_folder(folder / 'aligned')
    run_program([ALIGNER, '--i', 'blind.star', '--o', 'aligned/run', '--ref', MAP, '--ini_high',
                 f'{max(15.0, 3 * pixel_size):.1f}', '--ctf', '--iter', '1', '--K', '1', '--tau2_fudge', '4',
                 '--particle_diameter', f'{particle_diameter * 1.1:.0f}', '--flatten_solvent', '--zero_mask',
                 '--oversampling', '1', '--healpix_order', '2', '--offset_range', '5', '--offset_step', '2', '--sym',
                 symmetry, '--norm', '--scale', '--pad', '1', '--pool', '10', '--j', '1', '--random_seed', '1',
                 '--firstiter_cc'], folder)
    found = read_tables(folder / 'aligned' / 'run_it001_data.star')['particles'].set_index('rlnImageName')
    found = found.loc[rows['rlnImageName']]
    labels = euler_to_matrix(rows[_ANGLES].to_numpy(dtype=float))
    errors = measure_pose_errors(euler_to_matrix(found[_ANGLES].to_numpy(dtype=float)), labels, group)
    offsets = found[_ORIGINS].to_numpy(dtype=float) - rows[_ORIGINS].to_numpy(dtype=float)
    return summarise_errors(errors, labels, group, rng, float(np.median(np.linalg.norm(offsets, axis=1))))


def summarise_errors(
    errors: np.ndarray, labels: np.ndarray, group: np.ndarray, rng: np.random.Generator, origin: float | None = None
) -> PoseErrors:
    """Bring (n,) errors, degrees, together with the chance level of their labels."""
    return PoseErrors(float(np.median(errors)), float(np.mean(errors < 10)), origin,
                      measure_chance(labels, group, rng), len(errors))


def reconstruct_from_labels(folder: Path, symmetry: str) -> Reconstruction:
    """Let RELION rebuild the map from the labelled particles of an exported folder.

    Raises
    ------
    ProgramError : relion_reconstruct fails.
    """
    run_program([RECONSTRUCTOR, '--i', PARTICLES, '--o', 'rebuilt.mrc', '--ctf', '--sym', symmetry], folder)
    truth, pixel_size = read_own_volume(folder / MAP)
    rebuilt, _ = read_volume(folder / 'rebuilt.mrc', pixel_size)
    shells = correlate_shells(truth, rebuilt)
    mirrored = correlate_shells(truth[:, :, ::-1], rebuilt)
    low = slice(1, len(shells) // 2)
    below = np.flatnonzero(shells[1:] < 0.5)
    last = int(below[0]) + 1 if len(below) else len(shells) - 1
    n = len(read_tables(folder / PARTICLES)['particles'])
    return Reconstruction(len(truth) * pixel_size / last, float(shells[low].mean()), float(mirrored[low].mean()), n)


def correlate_shells(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the (n / 2,) Fourier shell correlation of two (n, n, n) maps."""
    n = len(first)
    spectra = [np.fft.fftn(one) for one in (first, second)]
    axis = np.fft.fftfreq(n, 1 / n)
    shells = np.rint(np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis ** 2)).astype(int).ravel()
    cross, *powers = (np.bincount(shells, (a * b.conj()).real.ravel()) for a, b in (
        (spectra[0], spectra[1]), (spectra[0], spectra[0]), (spectra[1], spectra[1])))
    return (cross / np.sqrt(np.maximum(powers[0] * powers[1], 1e-30)))[:n // 2]
