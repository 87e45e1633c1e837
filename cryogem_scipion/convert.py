"""The border post between Scipion and the engine: form -> settings, sets -> files; outputs.py goes the other way."""

import dataclasses
import glob
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mrcfile
import numpy as np
import pyworkflow.utils as pwutils
from pwem.constants import RELATION_CTF
from pwem.emlib.image import ImageHandler
from pwem.objects import Acquisition, Coordinate, CTFModel, Micrograph, Particle, SetOfCTF, SetOfParticles
from pyworkflow.object import Pointer

from cryogem.config import Config, build_config, key_of
from cryogem.conventions import matrix_to_euler
from cryogem.errors import ConfigError
from cryogem.io.files import compute_checksum, read_json
from cryogem.io.star import write_tables

# Settings that are two numbers in the engine are two parameters in a form.
_PAIRS = {'defocus_range': ('defocusMin', 'defocusMax'),
          'particles_per_micrograph': ('particlesMean', 'particlesSd'),
          'preferred_view': ('preferredRot', 'preferredTilt'),
          'phase_shift': ('phaseShiftMin', 'phaseShiftMax')}
AS_DEFAULT = 'default'                      # choice that leaves a setting to the engine
_READ_BY_ENGINE = ('.mrc', '.tif', '.tiff', '.png', '.jpg', '.jpeg')
_LARGEST, _LARGE_SHARE = 4, 0.05            # folders that a summary names, and their least share of the disk space
_HEADER_TOLERANCE = 1e-3                    # relative difference of pixel sizes that is taken for rounding


class LinkedMicrograph(NamedTuple):
    """A real micrograph and the file under which the engine finds it."""

    objId: int
    micName: str
    path: str


# --------------------------- form -> settings ---------------------------

def getParamNames(key: str) -> tuple[str, ...]:
    """Return the form parameters that hold the setting `key`."""
    first, *others = key.split('_')
    return _PAIRS.get(key, (first + ''.join(word.capitalize() for word in others),))


def listChoices(setting: dataclasses.Field) -> list[str]:
    """Return the choices of a setting as a form shows them; the first is the default where that is not one of them."""
    choices = list(setting.metadata.get('choices', ()))
    return [AS_DEFAULT, *choices] if choices and setting.default is None else choices


def collectSettings(protocol, configClass: type[Config], keys: Iterable[str]) -> dict[str, Any]:
    """Return the values of the form by setting; what is empty in the form is left to the engine's default."""
    choices = {key_of(one): listChoices(one) for one in dataclasses.fields(configClass)}
    lists = {key_of(one) for one in dataclasses.fields(configClass) if str(one.type).startswith('tuple[str')}
    values: dict[str, Any] = {}
    for key in keys:
        parts = [getattr(protocol, name).get() for name in getParamNames(key)]
        if all(part is None for part in parts):
            continue
        if key in lists and not parts[0].split():
            continue
        value: Any = parts[0] if len(parts) == 1 else parts
        value = choices[key][value] if choices[key] else value.split() if key in lists else value
        if value != AS_DEFAULT:
            values[key] = value
    return values


def findSettingErrors(protocol, configClass: type[Config], values: dict[str, Any]) -> list[str]:
    """Return all settings that the engine would refuse: label, value and remedy of each."""
    # what makes a config complete when a single setting is checked
    required = [one for one in dataclasses.fields(configClass) if one.metadata.get('required')]
    complete = {**{key_of(one): ('x',) if str(one.type).startswith('tuple') else 'x' for one in required},
                **protocol._assumedSettings}
    # one by one, to name them all; then together, for those that exclude each other
    errors = [_findError(protocol, configClass, {**complete, key: value}) for key, value in values.items()]
    found = [error for error in errors if error]
    together = '' if found else _findError(protocol, configClass, {**complete, **values})
    return found + ([together] if together else [])


def _findError(protocol, configClass: type[Config], values: dict[str, Any]) -> str:
    """Return what the engine has against `values` under the label of the form, '' if nothing."""
    try:
        build_config(configClass, values)
    except ConfigError as error:
        key, _, text = str(error).partition(' ')
        return f'*{protocol.getSettingLabel(key)}* {text}.'
    return ''


def computeDigest(path: str) -> str:
    """Return a short digest of a file, '' if there is none: an argument of steps that depend on its content."""
    if not os.path.exists(path):
        return ''
    return compute_checksum(Path(path))[:16]


def copyModel(source: str, target: str) -> None:
    """Copy a model folder without the state of its training; `target` is whole or not there."""
    temporary = f'{os.path.abspath(target)}.part'
    pwutils.cleanPath(temporary)
    os.makedirs(os.path.dirname(temporary), exist_ok=True)
    shutil.copytree(source, temporary, ignore=shutil.ignore_patterns('checkpoint*', '.*'))
    os.replace(temporary, target)


# --------------------------- sets -> files ---------------------------

def linkMicrographs(micrographs: Iterable[Micrograph], folder: str) -> list[LinkedMicrograph]:
    """Link micrographs into `folder` under their own names, made unique; what the engine cannot read becomes MRC."""
    pwutils.cleanPath(folder)
    pwutils.makePath(folder)
    linked, taken = [], set()
    for mic in micrographs:
        name = re.sub(r'[^\w.+-]', '_', pwutils.removeBaseExt(mic.getMicName() or mic.getFileName()))
        name = f'{name}_{mic.getObjId()}' if name in taken else name
        taken.add(name)
        index, source = mic.getLocation()
        extension = pwutils.getExt(source).lower()
        if index == 0 and extension in _READ_BY_ENGINE:
            path = os.path.join(folder, name + extension)
            pwutils.createAbsLink(os.path.abspath(source), path)
        else:
            path = os.path.join(folder, name + '.mrc')
            ImageHandler().convert((index, source), path)
        linked.append(LinkedMicrograph(mic.getObjId(), mic.getMicName() or '', path))
    return linked


def groupCoordinates(coordinates: Iterable[Coordinate], micrographs: Iterable[Micrograph]) -> dict[int, list]:
    """Return the picks of each micrograph that has any: its id -> list of (x, y) in px of the picked micrographs.

    Names decide, because picks and micrographs may come from different sets; ids only where a pick has no name.
    """
    ids = {mic.getMicName(): mic.getObjId() for mic in micrographs}
    known = set(ids.values())
    groups: dict[Any, list] = {}
    for coordinate in coordinates:
        name = coordinate.getMicName()
        micId = ids.get(name) if name else coordinate.getMicId()
        if micId in known:
            groups.setdefault(micId, []).append(coordinate.getPosition())
    return groups


def writeCoordinates(groups: dict[int, list], linked: Sequence[LinkedMicrograph], scale: float, folder: str) -> int:
    """Write a STAR file of picks beside each linked micrograph's name and return the number of picks.

    Parameters
    ----------
    scale : pixel size of the picked micrographs divided by that of the linked ones.
    """
    pwutils.cleanPath(folder)
    pwutils.makePath(folder)
    for mic in linked:
        positions = groups.get(mic.objId, [])
        path = Path(folder, pwutils.removeBaseExt(mic.path) + '.star')
        write_tables(path, {'': {'rlnCoordinateX': [float(x * scale) for x, _ in positions],
                                 'rlnCoordinateY': [float(y * scale) for _, y in positions]}})
    return sum(len(groups.get(mic.objId, [])) for mic in linked)


def matchCtfs(ctfs: Iterable[CTFModel], micrographs: Iterable[Any]) -> dict[int, CTFModel]:
    """Return the CTF of each micrograph by its id; names decide, ids only for CTFs without a micrograph.

    Parameters
    ----------
    micrographs : Micrograph or LinkedMicrograph.
    """
    pairs = [(mic.micName, mic.objId) if isinstance(mic, LinkedMicrograph) else (mic.getMicName(), mic.getObjId())
             for mic in micrographs]
    ids, known = dict(pairs), {objId for _, objId in pairs}
    matched = {}
    for ctf in ctfs:
        mic = ctf._micObj                   # getMicrograph() fails where there is none
        micId = ids.get(mic.getMicName()) if mic is not None and mic.getMicName() else ctf.getObjId()
        if micId in known:
            matched[micId] = copyCtf(ctf)
    return matched


def findCtfs(project, micSets: Iterable[Any]) -> Pointer | None:
    """Return a pointer to the latest CTFs that the project relates to one of the sets of micrographs, if any."""
    wanted, found = {one.getObjId() for one in micSets}, None
    for row in project.mapper.getRelationsByName(RELATION_CTF) if project is not None else ():
        parent = Pointer(project.getObject(row['object_parent_id']), extended=row['object_parent_extended']).get()
        pointer = Pointer(project.getObject(row['object_child_id']), extended=row['object_child_extended'])
        isClosed = isinstance(pointer.get(), SetOfCTF) and pointer.get().isStreamClosed()
        if parent is not None and parent.getObjId() in wanted and isClosed:
            found = pointer if pointer.hasExtended() else _pointToOutput(project, pointer.get())
    return found


def _pointToOutput(project, output) -> Pointer:
    """Return a pointer to an output of a run by its name, as the form makes them."""
    run = project.getObject(output.getObjParentId())
    return Pointer(run, extended=run.findAttributeName(output))


def writeCtfs(ctfs: Iterable[CTFModel], linked: Sequence[LinkedMicrograph], acquisition: Acquisition,
              pixelSize: float, path: str) -> int:
    """Write CTFs as RELION's micrographs.star and return how many micrographs have one."""
    matched = matchCtfs(ctfs, linked)
    mics = [mic for mic in linked if mic.objId in matched]
    models = [matched[mic.objId] for mic in mics]
    columns: dict[str, list] = {
        'rlnMicrographName': [os.path.basename(mic.path) for mic in mics],
        'rlnOpticsGroup': [1] * len(mics),
        'rlnDefocusU': [model.getDefocusU() for model in models],
        'rlnDefocusV': [model.getDefocusV() for model in models],
        'rlnDefocusAngle': [model.getDefocusAngle() for model in models],
        'rlnPhaseShift': [float(model.getPhaseShift() or 0) for model in models],
    }
    optics: dict[str, list] = {
        'rlnOpticsGroupName': ['opticsGroup1'],
        'rlnOpticsGroup': [1],
        'rlnMicrographPixelSize': [float(pixelSize)],
        'rlnVoltage': [float(acquisition.getVoltage())],
        'rlnSphericalAberration': [float(acquisition.getSphericalAberration())],
        'rlnAmplitudeContrast': [float(acquisition.getAmplitudeContrast())],
    }
    write_tables(Path(path), {'optics': optics, 'micrographs': columns})
    return len(mics)


def writeParticles(particles: SetOfParticles, path: str) -> None:
    """Write particles with poses, and with CTFs where known, as RELION's particles.star."""
    pixelSize, acquisition = particles.getSamplingRate(), particles.getAcquisition()
    rows = [_describeParticle(particle, pixelSize) for particle in particles]
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
    optics: dict[str, list] = {
        'rlnOpticsGroupName': ['opticsGroup1'],
        'rlnOpticsGroup': [1],
        'rlnImagePixelSize': [float(pixelSize)],
        'rlnImageSize': [int(particles.getDim()[0])],
        'rlnImageDimensionality': [2],
        'rlnVoltage': [float(acquisition.getVoltage())],
        'rlnSphericalAberration': [float(acquisition.getSphericalAberration())],
        'rlnAmplitudeContrast': [float(acquisition.getAmplitudeContrast())],
    }
    write_tables(Path(path), {'optics': optics, 'particles': columns})


def _describeParticle(particle: Particle, pixelSize: float) -> dict[str, Any]:
    """Return the row of a particle with RELION's names."""
    forward = np.linalg.inv(particle.getTransform().getMatrix())
    rot, tilt, psi = matrix_to_euler(forward[:3, :3])
    index, source = particle.getLocation()
    row = {'rlnImageName': f'{index:06d}@{source}', 'rlnOpticsGroup': 1,
           'rlnAngleRot': rot, 'rlnAngleTilt': tilt, 'rlnAnglePsi': psi,
           'rlnOriginXAngst': -forward[0, 3] * pixelSize, 'rlnOriginYAngst': -forward[1, 3] * pixelSize}
    if particle.hasCTF():
        ctf = particle.getCTF()
        row.update(rlnDefocusU=ctf.getDefocusU(), rlnDefocusV=ctf.getDefocusV(), rlnDefocusAngle=ctf.getDefocusAngle(),
                   rlnPhaseShift=float(ctf.getPhaseShift() or 0) if ctf.hasPhaseShift() else 0.0)
    return row


def exportMask(mask, path: str) -> None:
    """Put a mask to `path` as an MRC file with the pixel size that Scipion knows."""
    pwutils.cleanPath(path)
    _exportVolume(mask, path)


def exportVolumes(volumes: Sequence[Any], folder: str) -> None:
    """Put maps into `folder` as MRC files whose headers carry the pixel size that Scipion knows."""
    pwutils.cleanPath(folder)
    pwutils.makePath(folder)
    for number, volume in enumerate(volumes, 1):
        _exportVolume(volume, _getVolumePath(folder, number))


def describeVolumes(weights: Sequence[float], folder: str) -> list[str]:
    """Return exported maps with their weights as the engine wants them, MAP:WEIGHT."""
    return [f'{_getVolumePath(folder, number)}:{weight:g}' for number, weight in enumerate(weights, 1)]


def _getVolumePath(folder: str, number: int) -> str:
    return os.path.join(folder, f'volume_{number:02d}.mrc')


def _exportVolume(volume, path: str) -> None:
    index, source = volume.getLocation()
    source = source.removesuffix(':mrc')
    pixelSize = volume.getSamplingRate()
    if index == 0 and pwutils.getExt(source).lower() in ('.mrc', '.map'):
        with mrcfile.open(source, header_only=True, permissive=True) as file:
            isRight = abs(float(file.voxel_size.x) / pixelSize - 1) < _HEADER_TOLERANCE
        if isRight:
            pwutils.createAbsLink(os.path.abspath(source), path)
            return
        shutil.copyfile(source, path)
    else:
        ImageHandler().convert(volume, path)
    with mrcfile.open(path, mode='r+', permissive=True) as file:
        file.set_volume()
        file.voxel_size = pixelSize


def getPattern(folder: str) -> str:
    """Return the pattern that matches all files of a folder, whatever its name holds."""
    return os.path.join(glob.escape(folder), '*')


# --------------------------- disk space ---------------------------

def removeCopies(paths: Iterable[str]) -> int:
    """Remove files, and those in folders, that are no links, and return how many bytes that frees.

    What the engine read of the inputs is linked where it can be; what had to be copied or converted can be made anew.
    """
    freed = 0
    for path in paths:
        found = [os.path.join(path, name) for name in os.listdir(path)] if os.path.isdir(path) else [path]
        for file in found:
            if os.path.isfile(file) and not os.path.islink(file):
                freed += os.path.getsize(file)
                os.remove(file)
    return freed


def describeDiskUse(folder: str, without: Sequence[str] = ()) -> str:
    """Return what a folder takes on disk, and what most of it is by the names of its subfolders; links take nothing.

    Parameters
    ----------
    without : paths in it that are not counted.
    """
    sizes: dict[str, int] = {}
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if os.path.join(path, name) not in without]
        found = [os.path.join(path, name) for name in files]
        sizes[os.path.basename(path)] = sizes.get(os.path.basename(path), 0) + sum(
            os.lstat(one).st_size for one in found if one not in without)
    total = sum(sizes.values())
    largest = sorted(sizes, key=lambda name: -sizes[name])[:_LARGEST]
    parts = [f'{name} {pwutils.prettySize(sizes[name])}' for name in largest if sizes[name] > _LARGE_SHARE * total]
    return f'Disk space: *{pwutils.prettySize(total)}*' + (f', of it {", ".join(parts)}' if len(parts) > 1 else '')


# --------------------------- small things ---------------------------

def readManifest(folder: str) -> dict[str, Any]:
    """Return what the engine says of a finished output folder: pixel_size (Å/px), box_size (px), shape and more."""
    return read_json(Path(folder, 'manifest.json'), 'output')


def readCalibration(folder: str) -> dict[str, Any]:
    """Return what the engine measured on the real micrographs; the keys are those of `cryogem.imaging.calibration`."""
    return read_json(Path(folder, 'calibration.json'), 'output')


def describeCalibration(measured: dict[str, Any]) -> list[str]:
    """Return the numbers of a calibration that say most, as lines for a summary."""
    mics = measured['micrographs']
    picks = sum(one['n_picks'] for one in mics)
    lines = [f'Measured on *{len(mics)}* real micrographs with *{picks}* picked particles of '
             f'*{measured["particle_diameter"]:.0f} Å*']
    if measured['particles_per_frame']:
        mean, sd = measured['particles_per_frame']
        lines.append(f'Picked particles per micrograph: *{mean:.1f} ± {sd:.1f}*')
    if measured['neighbour_distances']:
        lines.append(f'Nearest neighbours at *{min(measured["neighbour_distances"]):.0f} Å* and more')
    defocus = [(one['ctf']['defocus_u'] + one['ctf']['defocus_v']) / 2e4 for one in mics if one['ctf']]
    if defocus:
        lines.append(f'Defocus of the real micrographs: *{min(defocus):.2f} to {max(defocus):.2f} µm*')
    if any(one['grey_sd'] < 0 for one in mics):
        lines.append('*Particles are bright* in the real micrographs: their contrast was inverted to measure, and is '
                     'inverted in what is made, too')
    return lines


def copyCtf(source: CTFModel) -> CTFModel:
    """Return the numbers of a CTF without its micrograph and files."""
    ctf = CTFModel()
    ctf.setStandardDefocus(*source.getDefocus())
    if source.hasPhaseShift():
        ctf.setPhaseShift(source.getPhaseShift())
    return ctf
