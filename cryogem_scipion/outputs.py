"""What the engine has written, as items of Scipion's sets: micrographs, CTFs, coordinates and particles. No numerics.

All comes from the records, which are the ground truth and are there as soon as a micrograph is finished; so a set can
grow while the engine runs, and no table of a million rows is held in memory.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pwem.objects import (
    Acquisition,
    Coordinate,
    CTFModel,
    Micrograph,
    Particle,
    SetOfCoordinates,
    SetOfCTF,
    SetOfMicrographs,
    SetOfParticles,
    Transform,
)
from pyworkflow.object import Integer

from cryogem import records
from cryogem.conventions import euler_to_matrix
from cryogem.io.files import read_json

_OUTLINE = 'outline.json'                   # written before the first micrograph


def readOutline(folder: str) -> dict[str, Any]:
    """Return what is known of an output folder before its first micrograph: box_size (px)."""
    return read_json(Path(folder, _OUTLINE), 'output')


def readFinished(folder: str, prefix: str, start: int, stop: int) -> Iterator[records.Micrograph]:
    """Yield the records of micrographs `start` to `stop` (from 0), in order, up to the first that is not finished."""
    for index in range(start, stop):
        name = records.name_micrograph(prefix, index)
        path = Path(folder, 'records', f'{name}.json')          # comes last of a micrograph's files
        if not path.exists():
            return
        yield records.Micrograph.from_json(read_json(path, 'output')['record'])


def copyAcquisition(source: Acquisition) -> Acquisition:
    """Return a copy without RELION's optics groups: those describe the real micrographs and would win over ours."""
    acquisition = Acquisition()
    acquisition.copyInfo(source)
    acquisition.opticsGroupInfo.set(None)
    return acquisition


def appendMicrograph(record: records.Micrograph, folder: str, micSet: SetOfMicrographs,
                     coordinateSet: SetOfCoordinates, ctfSet: SetOfCTF) -> None:
    """Append a micrograph, the coordinates of its pickable particles and its CTF to their sets."""
    mic = makeMicrograph(record, folder)
    micSet.append(mic)
    coordinate = makeCoordinate(0, 0, mic)
    for particle in _selectPickable(record):
        coordinate.setPosition(*particle.coordinate_xy)
        coordinate.cleanObjId()             # one object for all: making a million takes longer than storing them
        coordinateSet.append(coordinate)
    ctf = makeCtf(record.ctf)
    ctf.setMicrograph(mic)                  # gives the CTF the micrograph's id
    ctfSet.append(ctf)


def fillParticles(particleSet: SetOfParticles, found: Iterable[records.Micrograph], folder: str, stack: str) -> None:
    """Append the particles of a stack, which has the order of the records, with pose, CTF, coordinate and subset."""
    index = 0
    for record in found:
        mic = makeMicrograph(record, folder)
        for one in _selectPickable(record):
            index += 1
            particle = Particle()
            particle.setLocation(index, os.path.join(folder, stack))
            particle.setCoordinate(makeCoordinate(*one.coordinate_xy, mic))
            particle.setMicId(mic.getObjId())
            particle.setCTF(makeCtf(record.ctf.at_height(one.height)))      # bare: a micrograph adds a dozen columns
            particle.setTransform(makeTransform((one.rot, one.tilt, one.psi), one.origin_xy))
            particle.setClassId(one.volume_index + 1)                       # the conformer
            particle._rlnRandomSubset = Integer(one.random_subset)
            particleSet.append(particle)


def makeMicrograph(record: records.Micrograph, folder: str) -> Micrograph:
    """Return a micrograph whose id is its place in the run, from 1."""
    mic = Micrograph()
    mic.setObjId(record.index + 1)
    mic.setLocation(os.path.join(folder, 'micrographs', f'{record.name}.mrc'))
    mic.setMicName(f'{record.name}.mrc')
    return mic


def makeCoordinate(x: float, y: float, mic: Micrograph) -> Coordinate:
    """Return a coordinate; Scipion truncates to integers, so it is rounded here."""
    coordinate = Coordinate(x=round(x), y=round(y))
    coordinate.setMicrograph(mic)
    return coordinate


def makeCtf(ctf: records.Ctf) -> CTFModel:
    """Return a CTF, always with a phase shift: the first item of a set decides what all others can have."""
    model = CTFModel()
    model.setStandardDefocus(ctf.defocus_u, ctf.defocus_v, ctf.defocus_angle)
    model.setPhaseShift(ctf.phase_shift)
    return model


def makeTransform(angles: tuple[float, float, float], origin: tuple[float, float]) -> Transform:
    """Return a pose as Scipion keeps it: inv([R | t]) with x_image = R x_volume + t in px.

    Parameters
    ----------
    angles : rot, tilt, psi, degrees.
    origin : x, y, px, RELION's: minus the translation.
    """
    forward = np.eye(4)
    forward[:3, :3] = euler_to_matrix(np.array(angles))
    forward[:2, 3] = -np.array(origin)
    return Transform(np.linalg.inv(forward))


def _selectPickable(record: records.Micrograph) -> list[records.Particle]:
    """Return the particles of a record that tables and stacks of the engine list, in their order."""
    return [one for one in record.particles if record.is_pickable(one)]
