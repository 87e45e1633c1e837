"""What the wizards propose for the values of a form, without any display; the measuring is the engine's."""

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pyworkflow.exceptions import PyworkflowException

from cryogem.config import BOX_DIAMETERS, choose_box_size
from cryogem.io.files import read_json
from cryogem_scipion.convert import exportVolumes, getPattern, linkMicrographs, writeCoordinates
from cryogem_scipion.engine import askEngine

KeepAlive = Callable[[], None]              # called while the engine works; what it raises ends the engine
_TRIED = 3                                  # real micrographs that a preview is calibrated on


class ProposalError(PyworkflowException):
    """Something must be filled in before there is anything to propose; the message says what."""


def doNothing() -> None:
    """Wait without a window."""


@dataclass(frozen=True)
class Proposal:
    """Values for parameters of a form, how they were found, and pictures to judge them by."""

    values: dict[str, Any]
    text: str
    pictures: list[str] = field(default_factory=list)


def proposeFromMap(protocol, folder: str, threshold: float | None = None, keepAlive: KeepAlive = doNothing) -> Proposal:
    """Propose diameter and mask threshold of the first map; `threshold` is tried in place of that of its histogram."""
    if protocol.inputVolumes.get() is None:
        raise ProposalError('*Map of the particle* is empty; choose the map first.')
    values = {} if threshold is None else {'mask_threshold': threshold}
    output = askEngine(protocol.getPlugin(), 'inspect', {**_exportMap(protocol, folder), **values},
                       _renew(folder), keepAlive)
    found = read_json(output / 'inspection.json', 'output')['map']
    text = (f'Orange is what lies above the mask threshold of the coarse map (densities from '
            f'{found["least_density"]:.3g} to {found["largest_density"]:.3g}), blue the diameter of the particle: '
            f'{found["diameter"]:.0f} Å.')
    return Proposal({'particleDiameter': round(found['diameter'], 1),
                     'maskThreshold': float(f'{found["mask_threshold"]:.4g}')}, text, [str(output / 'map.png')])


def proposeFromPicks(protocol, folder: str, keepAlive: KeepAlive = doNothing) -> Proposal:
    """Propose the number of particles on a micrograph and their least distance, from the picks."""
    found, picture = _inspectPicks(protocol, folder, keepAlive)
    mean, sd = (round(value, 1) for value in found['particles_per_micrograph'])
    distance = round(found['minimum_distance'], 1)
    text = (f'{found["n_picks"]} picks on {found["number"]} micrographs: {mean:g} ± {sd:g} on each, counted inside a '
            f'border of half a particle; {distance:g} Å or more apart, but for the closest two of a hundred. '
            f'Circles have the diameter {found["diameter"]:.0f} Å. The simulation measures all this itself when the '
            'fields are empty.')
    return Proposal({'particlesMean': mean, 'particlesSd': sd, 'minimumDistance': distance}, text, [picture])


def proposePixelSize(protocol, folder: str, keepAlive: KeepAlive = doNothing) -> Proposal:
    """Propose the pixel size at which a particle is at most 100 px across."""
    working, diameter = _inspectSampling(protocol, folder, keepAlive)
    own = protocol.getInputMicrographs().getSamplingRate()
    text = (f'At {working:g} Å/px the particle of {diameter:.0f} Å is {diameter / working:.0f} px across; the '
            f'micrographs have {own:g} Å/px. Coarser is faster, finer keeps more detail than a picker sees.')
    return Proposal({'workingPixelSize': working}, text)


def proposeBoxSize(protocol, folder: str, keepAlive: KeepAlive = doNothing) -> Proposal:
    """Propose the box of particles, in px of what will be written."""
    pixelSize, diameter = _inspectSampling(protocol, folder, keepAlive)
    if protocol.getEnumText('outputSampling') == 'original':
        pixelSize = protocol.getInputMicrographs().getSamplingRate()
    else:
        pixelSize = protocol.workingPixelSize.get() or pixelSize
    box = choose_box_size(BOX_DIAMETERS * diameter, pixelSize)
    text = (f'{box} px of {pixelSize:g} Å are {BOX_DIAMETERS:g} times the particle of {diameter:.0f} Å. The same is '
            'taken when the field is empty. A larger box holds more of what the CTF spreads at high defocus.')
    return Proposal({'boxSize': box}, text)


def _inspectSampling(protocol, folder: str, keepAlive: KeepAlive) -> tuple[float, float]:
    """Return the working pixel size (Å/px) that the engine would choose, and the diameter (Å) that it comes from."""
    micSet = protocol.getInputMicrographs()
    if micSet is None:
        raise ProposalError('*Picked particles*, *Real micrographs* are both empty; choose one of them first.')
    values: dict[str, Any] = {'particle_diameter': protocol.particleDiameter.get()}
    if protocol.inputVolumes.get() is not None:
        values.update(_exportMap(protocol, folder))
    elif not values['particle_diameter']:
        raise ProposalError('*Particle diameter (Å)* and *Map of the particle* are both empty; give one of them first.')
    linked = linkMicrographs([micSet.getFirstItem()], os.path.join(folder, 'first'))
    values.update(micrographs=[linked[0].path], pixel_size=micSet.getSamplingRate())
    output = askEngine(protocol.getPlugin(), 'inspect', values, _renew(folder), keepAlive)
    found = read_json(output / 'inspection.json', 'output')['micrographs']
    return float(f'{found["working_pixel_size"]:.5g}'), found['diameter']


def proposeDefocus(protocol, folder: str, keepAlive: KeepAlive = doNothing) -> Proposal:
    """Propose the range of the defoci of the CTF set."""
    ctfs = protocol.getCtfPointer().get()
    if ctfs is None:
        raise ProposalError('*CTFs of the micrographs* is empty; choose a set of CTFs first. Without one the '
                            'simulation estimates them on the micrographs.')
    pairs = [(ctf.getDefocusV(), ctf.getDefocusU()) for ctf in ctfs]
    low, high = (round(value, -1) for value in (min(map(min, pairs)), max(map(max, pairs))))
    text = (f'The {len(pairs)} CTFs have defoci from {low:.0f} to {high:.0f} Å. The range counts only for a simulation '
            'without these CTFs: with them, each micrograph takes the CTF of a real one.')
    return Proposal({'defocusMin': low, 'defocusMax': high}, text)


def proposeNumber(protocol, wanted: float, particlesPerMicrograph: float) -> Proposal:
    """Propose how many micrographs hold `wanted` particles."""
    number = max(1, math.ceil(wanted / particlesPerMicrograph))
    return Proposal({'nMicrographs': number}, f'{number} micrographs with about {particlesPerMicrograph:.0f} particles '
                                              f'each hold about {number * particlesPerMicrograph:.0f} particles.')


def countForSimulate(protocol) -> float:
    """Return the expected particles on a simulated micrograph: what the form says, else the mean of the picks."""
    if protocol.particlesMean.get():
        return protocol.particlesMean.get()
    if protocol.inputCoordinates.get() is None:
        raise ProposalError('*Particles per micrograph* and *Picked particles* are both empty; give one of them first.')
    chosen, groups = protocol.chooseMicrographs()
    if not chosen:
        raise ProposalError('*Picked particles* are on none of the *Real micrographs*; choose others.')
    return sum(len(groups[mic.getObjId()]) for mic in chosen) / len(chosen)


def countForGenerate(protocol) -> float:
    """Return the particles on a micrograph of the linked simulation."""
    simulation = protocol.inputSimulation.getObjValue()
    if simulation is None or not simulation.isFinished():
        raise ProposalError('*Simulation* is empty or not finished; choose a finished one first.')
    return simulation.outputCoordinates.getSize() / simulation.outputMicrographs.getSize()


def makePreview(protocol, folder: str, keepAlive: KeepAlive = doNothing) -> Proposal:
    """Simulate one micrograph with the values of the form, put measured noise on it, and draw it beside a real one."""
    errors = protocol.validate()
    if errors:
        raise ProposalError('\n'.join(errors))
    protocol.writeEngineInputs(folder, most=_TRIED)
    values = {**protocol.getEngineValues(folder), 'n_micrographs': 1, 'particles': 'none'}
    dataset = askEngine(protocol.getPlugin(), 'simulate', values, folder, keepAlive)
    generated = askEngine(protocol.getPlugin(), 'generate',
                          {'dataset': str(dataset), 'n_micrographs': 1, 'seed': values['seed']}, folder, keepAlive)
    calibration = read_json(generated / 'calibration.json', 'output')
    diameter = {'particle_diameter': calibration['particle_diameter']}
    first = min(os.listdir(os.path.join(folder, 'micrographs')))
    real = {**diameter, 'micrographs': [os.path.join(folder, 'micrographs', first)],
            'pixel_size': values['pixel_size'], 'coordinates': values.get('coordinates', [])}
    pictures = [_drawPicks(protocol, real, _renew(folder, 'real'), keepAlive)]
    made = {**diameter, 'micrographs': [str(generated / 'micrographs' / '*.mrc')],
            'coordinates': [str(generated / 'coordinates' / '*.star')]}
    pictures.append(_drawPicks(protocol, made, _renew(folder, 'made'), keepAlive))
    number = len(read_json(next((dataset / 'records').iterdir()), 'output')['record']['particles'])
    text = (f'Left: a real micrograph. Right: one made with the values of the form, {number} particles, with the '
            f'measured noise of the first {_TRIED} micrographs. A run calibrates on all of them; a trained model adds '
            'what measured noise cannot say.')
    return Proposal({}, text, [picture for picture in pictures if picture])


def _inspectPicks(protocol, folder: str, keepAlive: KeepAlive) -> tuple[dict[str, Any], str]:
    """Return what the engine finds in the picks, and its picture."""
    if protocol.inputCoordinates.get() is None:
        raise ProposalError('*Picked particles* is empty; choose a set of picks first.')
    chosen, groups = protocol.chooseMicrographs()
    if not chosen:
        raise ProposalError('*Picked particles* are on none of the *Real micrographs*; choose others.')
    linked = linkMicrographs(chosen, os.path.join(folder, 'micrographs'))
    writeCoordinates(groups, linked, protocol.getPickScale(), os.path.join(folder, 'coordinates'))
    values = {'micrographs': [getPattern(os.path.join(folder, 'micrographs'))],
              'coordinates': [getPattern(os.path.join(folder, 'coordinates'))],
              'pixel_size': protocol.getInputMicrographs().getSamplingRate(),
              'particle_diameter': protocol.particleDiameter.get()}
    if protocol.inputVolumes.get() is not None:
        values.update(_exportMap(protocol, folder))
    output = askEngine(protocol.getPlugin(), 'inspect', values, _renew(folder), keepAlive)
    found = read_json(output / 'inspection.json', 'output')['micrographs']
    if 'minimum_distance' not in found:
        raise ProposalError('*Picked particles* are too few to measure; pick ten or more on one micrograph.')
    return found, str(output / 'picks.png')


def _drawPicks(protocol, values: dict[str, Any], folder: str, keepAlive: KeepAlive) -> str:
    """Return the picture of micrographs with their picks, '' where there are none."""
    picture = askEngine(protocol.getPlugin(), 'inspect', values, folder, keepAlive) / 'picks.png'
    return str(picture) if picture.exists() else ''


def _exportMap(protocol, folder: str) -> dict[str, Any]:
    """Export the first map and return it as a setting."""
    exportVolumes(protocol.getVolumes()[:1], os.path.join(folder, 'volumes'))
    return {'volume': os.path.join(folder, 'volumes', 'volume_01.mrc'),
            'volume_pixel_size': protocol.getVolumes()[0].getSamplingRate()}


def _renew(folder: str, name: str = 'inspection') -> str:
    """Return an empty folder of this name for one call of the engine."""
    path = os.path.join(folder, name)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path
