"""What the tests are run on: real micrographs with picks where they are found, else a small synthetic specimen."""

import csv
import json
import os
from pathlib import Path
from typing import NamedTuple

import mrcfile
import numpy as np
from pwem.objects import Coordinate, CTFModel, SetOfCoordinates, SetOfCTF

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
    """Write a map of a few blobs and micrographs with dark, blurred projections of it in white noise."""
    random, pixelSize, box = np.random.default_rng(seed), 4.0, 48
    (folder / 'micrographs').mkdir(parents=True, exist_ok=True)
    grid = np.stack(np.meshgrid(*[np.arange(box) - box // 2] * 3, indexing='ij'), axis=-1)
    centers = np.array([(0, 0, 0), (7, 0, 0), (-6, 4, 0), (0, -6, 5), (3, 5, -6)])
    volume = sum(np.exp(-((grid - center) ** 2).sum(-1) / (2 * 3.0 ** 2)) for center in centers).astype(np.float32)
    _writeMrc(folder / 'map.mrc', volume, pixelSize)
    picks, defocus = {}, {}
    for index in range(1, number + 1):
        places = np.arange(box // 2 + 4, side - box // 2 - 3, box - 6)
        positions = np.array([(x, y) for y in places for x in places]) + random.integers(-4, 5, (len(places) ** 2, 2))
        image = random.normal(0, 6, (side, side))
        for x, y in positions:
            projection = volume.sum(axis=random.integers(3))
            image[y - box // 2:y + box // 2, x - box // 2:x + box // 2] -= projection
        name = f'synthetic_{index:02d}'
        _writeMrc(folder / 'micrographs' / f'{name}.mrc', (100 + image).astype(np.float32), pixelSize)
        picks[name], defocus[name] = positions.astype(float), 18000.0 + 300 * index
    return Specimen('synthetic blobs', str(folder / 'map.mrc'), pixelSize, str(folder / 'micrographs' / '*.mrc'),
                    pixelSize, describeMicroscope(300.0, 2.7, 0.1), box, picks, defocus)


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
