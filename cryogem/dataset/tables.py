"""STAR tables from records, RELION 3.1 and later: optics, micrographs, particles, coordinates."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cryogem.conventions import split_center
from cryogem.records import Ctf, Micrograph, Particle
from cryogem.specimen.symmetry import find_symmetry_group, reduce_to_asymmetric_unit

Columns = dict[str, list[Any]]
Optics = dict[tuple[float, float, float], int]          # numbers of optics groups by voltage, Cs, amplitude contrast

_ASYMMETRIC_COLUMNS = ('cryogemAsymmetricRot', 'cryogemAsymmetricTilt', 'cryogemAsymmetricPsi')
_CTF_COLUMNS = ('rlnDefocusU', 'rlnDefocusV', 'rlnDefocusAngle', 'rlnPhaseShift', 'rlnCtfBfactor')


def build_optics(optics: Optics, pixel_size: float, image_size: int | None = None) -> Columns:
    """Return the optics block.

    Parameters
    ----------
    optics : one group for each microscope setting, as `number_optics` gives it.
    pixel_size : Å/px.
    image_size : px, of particle images.
    """
    pixel_sizes = [pixel_size] * len(optics)
    columns: Columns = {
        'rlnOpticsGroupName': [f'opticsGroup{i}' for i in optics.values()],
        'rlnOpticsGroup': list(optics.values()),
        'rlnMicrographOriginalPixelSize': pixel_sizes,
        'rlnVoltage': [one[0] for one in optics],
        'rlnSphericalAberration': [one[1] for one in optics],
        'rlnAmplitudeContrast': [one[2] for one in optics],
        'rlnMicrographPixelSize': pixel_sizes,
    }
    if image_size is not None:
        columns['rlnImagePixelSize'] = pixel_sizes
        columns['rlnImageSize'] = [image_size] * len(optics)
        columns['rlnImageDimensionality'] = [2] * len(optics)
    return columns


def number_optics(records: Iterable[Micrograph], optics: Optics | None = None) -> Optics:
    """Return the optics groups of records, those in `optics` with their numbers first, in order of appearance."""
    numbered = dict(optics or {})
    for record in records:
        numbered.setdefault(_optics_of(record.ctf), len(numbered) + 1)
    return numbered


def build_micrographs(records: Sequence[Micrograph], optics: Optics) -> Columns:
    """Return the micrographs block, names relative to the dataset folder."""
    columns: Columns = {
        'rlnMicrographName': [name_in_tables(record) for record in records],
        'rlnOpticsGroup': [optics[_optics_of(record.ctf)] for record in records],
    }
    return columns | _build_ctf_columns(record.ctf for record in records)


def build_particles(
    records: Sequence[Micrograph], optics: Optics, is_listed_pickable: bool = True, symmetry: str = 'C1'
) -> Columns:
    """Return the particles block of records.

    Parameters
    ----------
    optics : groups of all settings among the records.
    is_listed_pickable : True lists those a picker should find, False all the other painted ones.
    symmetry : point group; but for C1 three columns hold the equivalent pose in the asymmetric unit.
    """
    rows = [(record, particle) for record in records for particle in select_particles(record, is_listed_pickable)]
    x, y = ([split_center(particle.center_yx[axis]) for _, particle in rows] for axis in (1, 0))
    columns: Columns = {
        'rlnMicrographName': [name_in_tables(record) for record, _ in rows],
        'rlnCoordinateX': [coordinate for coordinate, _ in x],
        'rlnCoordinateY': [coordinate for coordinate, _ in y],
        'rlnOriginXAngst': [origin * record.pixel_size for (record, _), (_, origin) in zip(rows, x, strict=True)],
        'rlnOriginYAngst': [origin * record.pixel_size for (record, _), (_, origin) in zip(rows, y, strict=True)],
        'rlnAngleRot': [particle.rot for _, particle in rows],
        'rlnAngleTilt': [particle.tilt for _, particle in rows],
        'rlnAnglePsi': [particle.psi for _, particle in rows],
        'rlnOpticsGroup': [optics[_optics_of(record.ctf)] for record, _ in rows],
        'rlnRandomSubset': [particle.random_subset for _, particle in rows],
        'rlnClassNumber': [particle.volume_index + 1 for _, particle in rows],
        'cryogemInstance': [particle.instance_id for _, particle in rows],
        'cryogemVisibleFraction': [particle.visible_fraction for _, particle in rows],
        'cryogemOverlapFraction': [particle.overlap_fraction for _, particle in rows],
    }
    columns |= _build_ctf_columns(record.ctf.at_height(particle.height) for record, particle in rows)
    if symmetry.upper() != 'C1':
        poses = np.array([(particle.rot, particle.tilt, particle.psi) for _, particle in rows]).reshape(-1, 3)
        reduced = reduce_to_asymmetric_unit(poses, find_symmetry_group(symmetry))
        columns |= {name: reduced[:, i].tolist() for i, name in enumerate(_ASYMMETRIC_COLUMNS)}
    return columns


def name_images(n: int, first: int, stack: str) -> Columns:
    """Return the column that names `n` images of a stack file, from number `first` (from 1) on."""
    return {'rlnImageName': [f'{i:06d}@{stack}' for i in range(first, first + n)]}


def build_coordinates(record: Micrograph) -> Columns:
    """Return the coordinates of the pickable particles of one micrograph, px."""
    particles = select_particles(record)
    return {'rlnCoordinateX': [particle.coordinate_xy[0] for particle in particles],
            'rlnCoordinateY': [particle.coordinate_xy[1] for particle in particles]}


def select_particles(record: Micrograph, is_listed_pickable: bool = True) -> list[Particle]:
    """Return the pickable particles of a record, or all the others, in the order of every table and stack."""
    return [one for one in record.particles if record.is_pickable(one) == is_listed_pickable]


def name_in_tables(record: Micrograph) -> str:
    """Return the micrograph's name in STAR tables: its path relative to the dataset folder."""
    return f'micrographs/{record.name}.mrc'


def _build_ctf_columns(ctfs: Iterable[Ctf]) -> Columns:
    rows = [(ctf.defocus_u, ctf.defocus_v, ctf.defocus_angle, ctf.phase_shift, ctf.b_factor) for ctf in ctfs]
    return {name: [row[i] for row in rows] for i, name in enumerate(_CTF_COLUMNS)}


def _optics_of(ctf: Ctf) -> tuple[float, float, float]:
    return ctf.voltage, ctf.spherical_aberration, ctf.amplitude_contrast
