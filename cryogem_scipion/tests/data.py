"""What the tests are run on: real micrographs with picks where they are found, else a small synthetic specimen."""

import csv
import json
import os
from glob import glob
from pathlib import Path
from typing import NamedTuple

import mrcfile
import numpy as np
from pwem.objects import Coordinate, CTFModel, Micrograph, SetOfCoordinates, SetOfCTF

_VARIABLE = 'CRYOGEM_TEST_DATA'
_FOLDER = Path('shared', 'data', 'apoferritin_10146')


class Specimen(NamedTuple):
    """A map, micrographs and their picks, on disk."""

    name: str
    volume: str
    volumePixelSize: float                              # Å/px
    micrographs: str                                    # pattern
    pixelSize: float                                    # Å/px
    acquisition: dict[str, float]                       # keywords of Scipion's import
    boxSize: int                                        # px
    picks: dict[str, np.ndarray]                        # name of a micrograph without extension -> (n, 2) x, y in px
    defocus: dict[str, float]                           # name of a micrograph without extension -> Å


def findRealData() -> Path | None:
    """Return the folder of real micrographs: named by the variable, else in a folder `shared` above this package."""
    candidates = [parent / _FOLDER for parent in Path(__file__).resolve().parents]
    if os.environ.get(_VARIABLE):
        candidates.insert(0, Path(os.environ[_VARIABLE]))
    return next((folder for folder in candidates if (folder / 'dataset.json').exists()), None)


def readRealData(folder: Path) -> Specimen:
    """Describe a folder with dataset.json, micrographs.csv, map/, micrographs/ and coordinates/*.csv."""
    about = json.loads((folder / 'dataset.json').read_text(encoding='utf-8'))
    volume = folder / about['map']
    with mrcfile.open(volume, header_only=True) as file:
        volumePixelSize = float(file.voxel_size.x)
    picks = {path.stem: np.array([(float(row['x']), float(row['y'])) for row in _readRows(path)])
             for path in sorted(folder.glob('coordinates/*.csv'))}
    defocus = {Path(row['micrograph']).stem: float(row['defocus_A_approx'])
               for row in _readRows(folder / 'micrographs.csv')}
    box = 2 * round(0.75 * about['particle_diameter_A'] / about['apix'])
    return Specimen(about['specimen'], str(volume), volumePixelSize, str(folder / 'micrographs' / '*.mrc'),
                    about['apix'], describeMicroscope(about['voltage_kV'], about['cs_mm'],
                                                      about['amplitude_contrast']), box, picks, defocus)


def makeSyntheticData(folder: Path, number: int = 3, side: int = 256, seed: int = 0) -> Specimen:
    """Write a map of random atoms, and micrographs with its projections, seen through a CTF, in white noise."""
    random, pixelSize, box = np.random.default_rng(seed), 4.0, 48
    (folder / 'micrographs').mkdir(parents=True, exist_ok=True)
    volume = _makeVolume(random, box)
    _writeMrc(folder / 'map.mrc', volume, pixelSize)
    picks, defocus = {}, {}
    for index in range(1, number + 1):
        name = f'synthetic_{index:02d}'
        picks[name], defocus[name] = _placeParticles(random, side, box), 18000.0 + 300 * index
        specimen = np.zeros((side, side))
        for x, y in picks[name]:
            turned = np.rot90(np.transpose(volume, random.permutation(3)), random.integers(4), (1, 2))
            specimen[y - box // 2:y + box // 2, x - box // 2:x + box // 2] += turned.sum(axis=0)
        image = np.fft.ifft2(np.fft.fft2(specimen) * _computeCtf(side, pixelSize, defocus[name])).real
        image = 100 - 10 * (0.7 * image / image.std() + random.normal(size=(side, side)))
        _writeMrc(folder / 'micrographs' / f'{name}.mrc', image.astype(np.float32), pixelSize)
    return Specimen('synthetic atoms', str(folder / 'map.mrc'), pixelSize, str(folder / 'micrographs' / '*.mrc'),
                    pixelSize, describeMicroscope(300.0, 2.7, 0.1), box, picks, defocus)


def _makeVolume(random: np.random.Generator, box: int) -> np.ndarray:
    """Return a (box, box, box) map of 60 atoms in an ellipsoid."""
    grid = np.stack(np.meshgrid(*[np.arange(box) - box // 2] * 3, indexing='ij'), axis=-1)
    centers = random.normal(size=(60, 3))
    centers *= random.uniform(size=(60, 1)) ** (1 / 3) / np.linalg.norm(centers, axis=1, keepdims=True)
    volume = sum(np.exp(-((grid - center) ** 2).sum(-1) / (2 * 1.5 ** 2)) for center in centers * (14, 12, 10))
    return np.asarray(volume, dtype=np.float32)


def _placeParticles(random: np.random.Generator, side: int, box: int) -> np.ndarray:
    """Return (n, 2) x, y in px of particles that lie apart and inside the frame, as many as found in some tries."""
    found: list[np.ndarray] = []
    for position in random.integers(box // 2, side - box // 2 + 1, (side, 2)):
        if all(np.hypot(*(position - other)) > 0.75 * box for other in found):
            found.append(position)
    return np.array(found)


def _computeCtf(side: int, pixelSize: float, defocus: float) -> np.ndarray:
    """Return the (side, side) CTF of 300 kV, Cs 2.7 mm, 10 % amplitude contrast, bright for bright specimens."""
    wavelength, frequency = 0.0197, np.hypot(*np.meshgrid(*[np.fft.fftfreq(side, pixelSize)] * 2))
    phase = np.pi * wavelength * defocus * frequency ** 2 - 0.5 * np.pi * 2.7e7 * wavelength ** 3 * frequency ** 4
    return np.sin(phase + np.arcsin(0.1))


def describeMicrographs(pattern: str) -> list[Micrograph]:
    """Return micrographs as Scipion's import will number and name them."""
    mics = []
    for objId, path in enumerate(sorted(glob(pattern)), 1):
        mic = Micrograph()
        mic.setObjId(objId)
        mic.setMicName(os.path.basename(path))
        mics.append(mic)
    return mics


def writePicks(path: str, picks: dict[str, np.ndarray], micrographs, boxSize: int) -> SetOfCoordinates:
    """Write picks as the coordinates.sqlite that Scipion's own import reads; other formats want other plugins."""
    coordinates = SetOfCoordinates(filename=path)
    coordinates.setBoxSize(boxSize)
    for mic in micrographs:
        for x, y in picks.get(os.path.splitext(mic.getMicName())[0], ()):
            coordinate = Coordinate(x=round(x), y=round(y))
            coordinate.setMicrograph(mic)
            coordinates.append(coordinate)
    coordinates.write()
    coordinates.close()
    return coordinates


def writeCtfs(path: str, defocus: dict[str, float], micrographs) -> SetOfCTF:
    """Write CTFs without astigmatism as the ctfs.sqlite that Scipion's own import reads."""
    ctfs = SetOfCTF(filename=path)
    for mic in micrographs:
        ctf = CTFModel()
        value = defocus[os.path.splitext(mic.getMicName())[0]]
        ctf.setStandardDefocus(value, value, 0.0)
        ctf.setMicrograph(mic)
        ctfs.append(ctf)
    ctfs.write()
    ctfs.close()
    return ctfs


def describeMicroscope(voltage: float, sphericalAberration: float, amplitudeContrast: float) -> dict[str, float]:
    """Return the keywords of Scipion's import protocols for kV, mm and a fraction."""
    return {'voltage': voltage, 'sphericalAberration': sphericalAberration, 'amplitudeContrast': amplitudeContrast,
            'magnification': 50000}


def _readRows(path: Path) -> list[dict[str, str]]:
    with path.open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def _writeMrc(path: Path, array: np.ndarray, pixelSize: float) -> None:
    with mrcfile.new(path, array, overwrite=True) as file:
        file.voxel_size = pixelSize
