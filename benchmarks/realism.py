"""How far generated micrographs are from real ones that nothing was measured on, beside what two real halves differ by.

Each set is split by micrograph; one half calibrates, the other judges, and the other way round. Measured noise stands
beside what is left of it without its rings (B), without the background map, without the fit of the amplitude, and
white noise: the table that ``cryogem simulate --ablation`` puts into the page of the calibration. Every distance is
printed with its floor, that of the calibrating real half, and their ratio.

Run: python benchmarks/realism.py [FOLDER ...] [--topaz FOLDER] [--sheet FOLDER]
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cryogem.commands.ablation import MEASURED, Likeness, ablate
from cryogem.commands.calibrate import estimate_ctfs
from cryogem.commands.inputs import find_pixel_size, read_maps, read_real_micrographs
from cryogem.commands.simulate import learn_from
from cryogem.config import SimulateConfig
from cryogem.evaluation.ablation import AblationRow
from cryogem.evaluation.features import TopazNetwork, find_topaz_weights, load_topaz_network
from cryogem.evaluation.frames import Frame
from cryogem.evaluation.gallery import Exhibit, write_gallery
from cryogem.imaging.calibration import RealMicrograph
from cryogem.imaging.resampling import choose_working_pixel_size
from cryogem.io.files import make_folder
from cryogem.specimen.volume import PreparedVolume, bring_to_pixel_size

_DATA = Path(__file__).parents[1] / '..' / 'shared' / 'data'
_SHOWN = 2                                  # micrographs of each kind on a sheet


@dataclasses.dataclass(frozen=True)
class RealSet:
    """A real data set at its working pixel size."""

    config: SimulateConfig
    micrographs: list[RealMicrograph]
    pixel_size: float
    volumes: list[PreparedVolume]
    weights: list[float]

    @property
    def diameter_px(self) -> float:
        """Diameter of the particle, px."""
        return max(one.diameter for one in self.volumes) / self.pixel_size

    def learn(self, known: Sequence[RealMicrograph], ratio: float | None) -> Likeness:
        """Return what makes micrographs like some of the set."""
        return learn_from(known, self.config, self.pixel_size, self.volumes, self.weights, ratio)


def main() -> None:
    """Print one table for each set."""
    parser = argparse.ArgumentParser()
    parser.add_argument('folders', nargs='*', type=Path)
    parser.add_argument('--topaz', default='')
    parser.add_argument('--sheet', type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    weights = find_topaz_weights(arguments.topaz)
    network = None if weights is None else load_topaz_network(weights)
    if network is None:
        print('no topaz-em, so no Fréchet distance: give --topaz')
    for folder in find_folders(arguments.folders):
        print(folder.name, flush=True)
        judge_set(load_set(folder), network, arguments.sheet and arguments.sheet / f'{folder.name}.png')


def find_folders(given: Sequence[Path]) -> list[Path]:
    """Return the folders of data sets that were given, or those at hand."""
    return list(given) or sorted(one.parent for one in _DATA.glob('*/dataset.json'))


def load_set(folder: Path) -> RealSet:
    """Read a folder with dataset.json, map, micrographs and coordinates."""
    said = json.loads((folder / 'dataset.json').read_text(encoding='utf-8'))
    config = SimulateConfig(
        output='x', volume=(str(folder / said['map']),), micrographs=(str(folder / 'micrographs' / '*.mrc'),),
        coordinates=(str(folder / 'coordinates' / '*.star'),), voltage=float(said['voltage_kV']),
        spherical_aberration=float(said['cs_mm']), amplitude_contrast=float(said['amplitude_contrast']))
    maps, weights = read_maps(config.volume, None, config)
    pixel_size = choose_working_pixel_size(find_pixel_size(config.micrographs, None), max(m.diameter for m in maps))
    micrographs = estimate_ctfs(read_real_micrographs(config, pixel_size), pixel_size, config)
    return RealSet(config, micrographs, pixel_size, [bring_to_pixel_size(one, pixel_size) for one in maps], weights)


def judge_set(real_set: RealSet, network: TopazNetwork | None, sheet: Path | None) -> None:
    """Print the table of one set: means over the halvings."""
    def show(kind: str, made: Sequence[Frame], judges: Sequence[Frame]) -> None:
        if sheet is not None and kind == MEASURED:
            make_folder(sheet.parent)
            write_gallery(sheet, [[Exhibit(caption, one.contrast, np.empty((0, 2))) for one in some[:_SHOWN]]
                                  for caption, some in (('real', judges), ('generated', made))], 1.0)

    ablation = ablate(real_set.micrographs, real_set.learn, network, real_set.diameter_px, show)
    for row in ablation.rows:
        print_row(row)


def print_row(row: AblationRow) -> None:
    """Print one line: distances, with their floors and the ratio of both."""
    ratios = '   '.join(f'{name} {row.found[name]:.4f} / {row.floor[name]:.4f} = '
                        f'{row.found[name] / row.floor[name]:.2f}'
                        for name in ('frechet', 'spectrum', 'variance', 'greys') if name in row.found)
    print(f'  {row.name:<22s} {ratios}   particle contrast {row.found["contrast"]:.3f} (real '
          f'{row.floor["contrast"]:.3f}), profile correlation {row.found["profile"]:.3f} (real '
          f'{row.floor["profile"]:.3f})', flush=True)


if __name__ == '__main__':
    main()
