#!/usr/bin/env python3
"""From a map and real micrographs to micrographs with known particles, in a Scipion project, without a display.

Imports map, micrographs and picks, simulates, trains and generates, then draws a gallery of real and generated
micrographs at the same grey scale. Takes apoferritin data from a folder `shared/data` beside the repository (or from
CRYOGEM_TEST_DATA), otherwise a public data set of Scipion, otherwise a specimen that it makes itself.

    python examples/demo.py                 # about ten minutes on two cores; `make demo` does the same
    python examples/demo.py --steps 20      # a quick look
"""

import argparse
import glob
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow import ROOT, Workflow, prepare_scipion

from cryogem.config import PARTICLE_STACKS
from cryogem.io.files import read_json

if TYPE_CHECKING:
    from cryogem_scipion.tests.data import Specimen

PROJECT = 'cryogem_demo'
PANEL, GAP, CIRCLE = 640, 8, (255, 200, 60)            # px of a picture, px between two, colour of picks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--folder', type=Path, default=ROOT / '.scipion', help='configuration and projects of Scipion')
    parser.add_argument('--output', type=Path, default=ROOT / 'demo', help='where the gallery goes')
    parser.add_argument('--simulated', type=int, default=12, help='micrographs to simulate')
    parser.add_argument('--steps', type=int, default=200, help='training steps')
    parser.add_argument('--generated', type=int, default=4, help='micrographs to generate')
    parser.add_argument('--threads', type=int, default=min(2, os.cpu_count() or 1))
    args = parser.parse_args()
    output = args.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    prepare_scipion(args.folder)

    started = time.time()
    specimen = find_specimen(args.folder.resolve())
    chain = Chain(PROJECT)
    chain.import_specimen(specimen)
    generated = chain.run_protocols(args.simulated, args.steps, args.generated, args.threads)
    draw_gallery(chain, generated, output / 'gallery.png')
    print(f'project: {chain.project.path}   (open it: python -m scipion project {PROJECT})')
    print(f'gallery: {output / "gallery.png"}   real on the left, generated on the right')
    print(f'done in {(time.time() - started) / 60:.1f} min')


def find_specimen(folder: Path) -> 'Specimen':
    """Return the data for the demo and say which they are."""
    from cryogem_scipion.tests.data import findRealData, makeSyntheticData, readRealData
    real = findRealData()
    if real is not None:
        print(f'data: real micrographs of {real}', flush=True)
        return readRealData(real)
    try:
        specimen = download_specimen()
        print(f'data: public data set of Scipion, {specimen.name}', flush=True)
        return specimen
    except OSError as error:
        print(f'no real micrographs beside the repository, and the public ones could not be had: {error}', flush=True)
    print('data: a synthetic specimen, made now; give CRYOGEM_TEST_DATA for real ones', flush=True)
    shutil.rmtree(folder / 'synthetic', ignore_errors=True)
    return makeSyntheticData(folder / 'synthetic', number=6, side=512)


def download_specimen() -> 'Specimen':
    """Fetch ribosome micrographs with picks through Scipion's own download; OSError if that fails."""
    from pwem.tests import defineDatasets
    from pyworkflow.tests import DataSet

    from cryogem_scipion.tests.data import Specimen, describeMicroscope
    defineDatasets()
    data = DataSet.getDataSet('relion_tutorial')
    volume, micrographs = Path(data.getFile('volume')), glob.glob(data.getFile('allMics'))
    pick_files = sorted(Path(data.getFile('posAllDir')).glob('*.pos'))
    if not (volume.exists() and micrographs and pick_files):
        raise OSError(f'{data.getPath()} is not complete after the download')
    picks = {path.stem: read_pos(path) for path in pick_files}
    return Specimen('ribosome (relion_tutorial)', str(volume), 7.08, data.getFile('allMics'), 7.08,
                    describeMicroscope(300.0, 2.0, 0.1), 60, picks, {})


def read_pos(path: Path) -> Any:
    """Return (n, 2) x, y in px from the loop with _xcoor and _ycoor of a picking file of Xmipp."""
    import numpy as np
    columns: list[str] = []
    rows = []
    for line in path.read_text(encoding='utf-8').splitlines():
        words = line.split()
        if line.startswith('data_'):
            columns = []
        elif words and words[0].startswith('_'):
            columns.append(words[0])
        elif '_xcoor' in columns and len(words) == len(columns):
            rows.append([float(words[columns.index(name)]) for name in ('_xcoor', '_ycoor')])
    return np.array(rows).reshape(-1, 2)


class Chain(Workflow):
    """The runs of the demo."""

    def __init__(self, name: str):
        super().__init__(name)
        self.volume: Any = None
        self.micrographs: Any = None
        self.picks: Any = None

    def import_specimen(self, specimen: 'Specimen') -> None:
        """Import map, micrographs and picks; CTFs are estimated by the simulation."""
        self.volume = self.import_map(specimen.volume, specimen.volumePixelSize)
        self.micrographs = self.import_micrographs(specimen.micrographs, specimen.pixelSize, **specimen.acquisition)
        self.picks = self.import_picks(self.micrographs, specimen.picks, specimen.boxSize)

    def run_protocols(self, n_simulated: int, n_steps: int, n_generated: int, n_threads: int) -> Any:
        """Simulate, train, generate; return the last run."""
        inputs = {'inputVolumes': (self.volume, 'outputVolume'), 'inputCoordinates': (self.picks, 'outputCoordinates')}
        simulation = self.run('ProtCryogemSimulate', 'simulate', inputs, nMicrographs=n_simulated,
                              numberOfThreads=n_threads)
        of_simulation = {'inputSimulation': (simulation, 'outputSimulation')}
        training = self.run('ProtCryogemTrain', 'train', of_simulation, maxSteps=n_steps)
        return self.run('ProtCryogemGenerate', 'generate', {**of_simulation, 'inputModel': (training, 'outputModel')},
                        nMicrographs=n_generated, particles=PARTICLE_STACKS.index('generated'),
                        numberOfThreads=n_threads)


def draw_gallery(chain: Chain, generated: Any, path: Path) -> None:
    """Draw two real micrographs, then two generated ones, at one grey scale; below them the same with their picks.

    The real ones are those whose ice, noise and grey scale the generated ones took.
    """
    import numpy as np
    from PIL import Image
    made = [mic.clone() for mic in generated.outputMicrographs]
    sources = [find_source(chain, mic) for mic in made]
    second = next((i for i, one in enumerate(sources) if one.getObjId() != sources[0].getObjId()), 1)
    panels = [read_panel(sources[i], chain.picks.outputCoordinates) for i in (0, second)]
    panels += [read_panel(made[i], generated.outputCoordinates) for i in (0, second)]
    low, high = np.percentile(np.concatenate([image.ravel() for image, _, _ in panels]), (0.5, 99.5))
    width = max(picture_size(image)[0] for image, _, _ in panels)
    height = max(picture_size(image)[1] for image, _, _ in panels)
    gallery = Image.new('RGB', (4 * width + 3 * GAP, 2 * height + GAP), 'white')
    for column, (image, positions, radius) in enumerate(panels):
        grey = np.clip((image - low) / (high - low) * 255, 0, 255).astype(np.uint8)
        picture = Image.fromarray(grey).resize(picture_size(image), Image.Resampling.BOX).convert('RGB')
        left = column * (width + GAP)
        gallery.paste(picture, (left, 0))
        mark_picks(picture, positions, radius, picture.width / image.shape[1])
        gallery.paste(picture, (left, height + GAP))
    gallery.save(path)


def find_source(chain: Chain, micrograph: Any) -> Any:
    """Return the real micrograph whose ice, noise and grey scale a generated one took."""
    folder = Path(micrograph.getFileName()).parent.parent
    record = read_json(folder / 'records' / f'{Path(micrograph.getFileName()).stem}.json', 'output')['record']
    name = read_json(folder / 'calibration.json', 'output')['micrographs'][record['source']]['name']
    return next(mic.clone() for mic in chain.micrographs.outputMicrographs if Path(mic.getMicName()).stem == name)


def picture_size(image: Any) -> tuple[int, int]:
    """Return (width, height) of the picture of an (h, w) image: as it is, or reduced to fit a panel."""
    scale = min(1.0, PANEL / max(image.shape))
    return round(image.shape[1] * scale), round(image.shape[0] * scale)


def read_panel(micrograph: Any, picks: Any) -> tuple[Any, list, float]:
    """Return (h, w) image, picks (x, y) and their radius, px."""
    import mrcfile
    import numpy as np
    positions = [one.getPosition() for one in picks.iterCoordinates(micrograph)]
    return np.squeeze(mrcfile.read(micrograph.getFileName())).astype(np.float32), positions, picks.getBoxSize() / 3


def mark_picks(picture: Any, positions: list, radius: float, scale: float) -> None:
    """Draw a circle around each pick; `scale` takes px of the micrograph to px of the picture."""
    from PIL import ImageDraw
    draw = ImageDraw.Draw(picture)
    for x, y in positions:
        corners = [(value + sign * radius) * scale for sign in (-1, 1) for value in (x, y)]
        draw.ellipse(corners, outline=CIRCLE, width=2)


if __name__ == '__main__':
    main()
