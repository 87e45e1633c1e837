"""STAR tables from records, RELION 3.1 and later: optics, micrographs, particles, coordinates."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cryogem.records import Ctf, Micrograph, Particle
from cryogem.specimen.symmetry import find_symmetry_group, reduce_to_asymmetric_unit

Columns = dict[str, list[Any]]

_ASYMMETRIC_COLUMNS = ('cryogemAsymmetricRot', 'cryogemAsymmetricTilt', 'cryogemAsymmetricPsi')
_CTF_COLUMNS = ('rlnDefocusU', 'rlnDefocusV', 'rlnDefocusAngle', 'rlnPhaseShift', 'rlnCtfBfactor')


def build_optics(records: Sequence[Micrograph], image_size: int | None = None) -> Columns:
    """Return the optics block: one group for each microscope setting among the records.

    Parameters
    ----------
    image_size : px, of particle images when the table has any.
    """
    settings = list_optics(records)
    pixel_sizes = [records[0].pixel_size] * len(settings)
    columns: Columns = {
        'rlnOpticsGroupName': [f'opticsGroup{i}' for i in range(1, len(settings) + 1)],
        'rlnOpticsGroup': list(range(1, len(settings) + 1)),
        'rlnMicrographOriginalPixelSize': pixel_sizes,
        'rlnVoltage': [one[0] for one in settings],
        'rlnSphericalAberration': [one[1] for one in settings],
        'rlnAmplitudeContrast': [one[2] for one in settings],
        'rlnMicrographPixelSize': pixel_sizes,
    }
    if image_size is not None:
        columns['rlnImagePixelSize'] = pixel_sizes
        columns['rlnImageSize'] = [image_size] * len(settings)
        columns['rlnImageDimensionality'] = [2] * len(settings)
    return columns


def list_optics(records: Sequence[Micrograph]) -> list[tuple[float, float, float]]:
    """Return the distinct (voltage, Cs, amplitude contrast) of the records in order of appearance."""
    return list(dict.fromkeys(_optics_of(record.ctf) for record in records))


def build_micrographs(records: Sequence[Micrograph]) -> Columns:
    """Return the micrographs block, names relative to the dataset folder."""
    groups = {one: i for i, one in enumerate(list_optics(records), 1)}
    columns: Columns = {
        'rlnMicrographName': [name_in_tables(record) for record in records],
        'rlnOpticsGroup': [groups[_optics_of(record.ctf)] for record in records],
    }
    return columns | _build_ctf_columns(record.ctf for record in records)


def build_particles(
    records: Sequence[Micrograph], is_listed_pickable: bool = True, stack: str | None = None, symmetry: str = 'C1'
) -> Columns:
    """Return the particles block of all records.

    Parameters
    ----------
    is_listed_pickable : True lists those a picker should find, False all the other painted ones.
    stack : file name of the particle images, which follow the order of the table; None for no images.
    symmetry : point group; but for C1 three columns hold the equivalent pose in the asymmetric unit.
    """
    groups = {one: i for i, one in enumerate(list_optics(records), 1)}
    rows = [(record, particle) for record in records for particle in select_particles(record, is_listed_pickable)]
    columns: Columns = {
        'rlnMicrographName': [name_in_tables(record) for record, _ in rows],
        'rlnCoordinateX': [particle.coordinate_xy[0] for _, particle in rows],
        'rlnCoordinateY': [particle.coordinate_xy[1] for _, particle in rows],
        'rlnOriginXAngst': [particle.origin_xy[0] * record.pixel_size for record, particle in rows],
        'rlnOriginYAngst': [particle.origin_xy[1] * record.pixel_size for record, particle in rows],
        'rlnAngleRot': [particle.rot for _, particle in rows],
        'rlnAngleTilt': [particle.tilt for _, particle in rows],
        'rlnAnglePsi': [particle.psi for _, particle in rows],
        'rlnOpticsGroup': [groups[_optics_of(record.ctf)] for record, _ in rows],
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
    if stack is not None:
        columns['rlnImageName'] = [f'{i:06d}@{stack}' for i in range(1, len(rows) + 1)]
    return columns


def build_coordinates(record: Micrograph) -> Columns:
    """Return the coordinates of the pickable particles of one micrograph, px."""
    particles = select_particles(record)
    return {'rlnCoordinateX': [particle.coordinate_xy[0] for particle in particles],
            'rlnCoordinateY': [particle.coordinate_xy[1] for particle in particles]}


def format_topaz_coordinates(records: Sequence[Micrograph]) -> str:
    """Return the pickable particles as Topaz reads them: image name without extension, x, y, tab-separated."""
    lines = ['image_name\tx_coord\ty_coord']
    lines += ['\t'.join(map(str, (record.name, *particle.coordinate_xy)))
              for record in records for particle in select_particles(record)]
    return '\n'.join(lines) + '\n'


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
