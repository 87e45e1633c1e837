"""The evaluation in full on real data sets: `make evaluate`, which writes docs/results.md.

Each data set is split by micrograph: from one part the experiment is calibrated, simulated, generated and, if asked,
learned; the other part judges. Only the picks of the first part train the picker of the upper control.

With --added-noise K the particles become harder to pick: to every real micrograph K times the noise of its own spectrum
is added (the micrograph itself with random phases) before anything else is done, which divides the share of the signal
in the power by 1 + K².
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryogem.imaging.noise import randomise_phases
from cryogem.io.mrc import read_micrograph, write_image

ROOT = Path(__file__).resolve().parents[1]
COST = 'cost.json'                          # left by each command: time and memory
N_MICROGRAPHS = 6                           # of each generated set
ENCODER_STEPS = 60                          # of the trainings for the similarity maps
# sets that the picker is trained on: training takes most of the time
PICKING_ARMS = ('measured', 'gaussian', 'gaussian_fitted')
# where the contrastive loss of two models looks that are trained for the similarity maps alone
SAMPLINGS = {'mask_guided': 'guided', 'uniform': 'uniform'}
FIGURES = ('spectra.png', 'signal.png', 'ctf.png', 'picking.png')        # those without real micrographs
ABOVE = '<!-- `make evaluate` writes all that follows, and leaves what stands above -->\n'


@dataclass(frozen=True)
class DataSet:
    """A real data set with people's picks."""

    name: str
    folder: Path
    origin: str = ''                        # the set that this one was made from

    @property
    def symmetry(self) -> str:
        """Point group of its particle."""
        return str(json.loads((self.folder / 'dataset.json').read_text()).get('symmetry', 'C1'))

    @property
    def map(self) -> Path:
        """Its map."""
        return next((self.folder / 'map').glob('*.mrc'))

    def list_part(self, is_judge: bool) -> list[Path]:
        """Return every other micrograph, the part that judges or the one that is learned from."""
        return sorted((self.folder / 'micrographs').glob('*.mrc'))[0 if is_judge else 1::2]

    def list_picks(self, micrographs: list[Path]) -> list[Path]:
        """Return the picks of micrographs."""
        return [self.folder / 'coordinates' / f'{one.stem}.star' for one in micrographs]


def main() -> None:
    """Run the evaluation on each data set and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', type=Path, default=ROOT.parent / 'shared' / 'data', help='folder of the data sets')
    parser.add_argument('--work', type=Path, default=ROOT / 'build' / 'evaluation', help='folder of the runs')
    parser.add_argument('--results', type=Path, default=ROOT / 'docs' / 'results.md', help='file that is written')
    parser.add_argument('--topaz', default=str(ROOT / '.topaz-venv'), help='environment of Topaz')
    parser.add_argument('--train-minutes', type=float, default=0.0,
                        help='also learn a model for so long at most, and two small ones, with and without mask '
                        'guidance, for the similarity maps alone')
    parser.add_argument('--train-steps', type=int, help='most steps of a training; default: those of the preset')
    parser.add_argument('--picking-seeds', type=int, default=5)
    parser.add_argument('--picking-iterations', nargs='+', default=['100'])
    parser.add_argument('--picking', action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument('--picking-scratch', action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument('--picking-arms', nargs='+', default=PICKING_ARMS)
    parser.add_argument('--added-noise', type=float, default=0.0, help='make all micrographs noisier, so many times')
    parser.add_argument('--sets', nargs='+', help='names of data sets; default: all')
    parser.add_argument('--write-only', action='store_true', help='write the results of runs that are there')
    arguments = parser.parse_args()
    for one in find_sets(arguments):
        if arguments.added_noise:
            one = make_noisier(one, arguments.added_noise, arguments.work)
        if not arguments.write_only:
            evaluate(one, arguments)
        write_results(arguments)


def find_sets(arguments: argparse.Namespace) -> list[DataSet]:
    """Return the data sets that are asked for; end the program where there is none."""
    folders = sorted(one.parent for one in arguments.data.glob('*/dataset.json'))
    sets = [DataSet(one.name, one) for one in folders if not arguments.sets or one.name in arguments.sets]
    if not sets:
        sys.exit(f'no data sets with a dataset.json in {arguments.data}')
    return sets


def make_noisier(one: DataSet, factor: float, work: Path) -> DataSet:
    """Return a copy of a data set whose micrographs have noise added, `factor` times that of their own spectrum."""
    noisier = DataSet(f'{one.name}_noise{factor:g}', work / f'{one.name}_noise{factor:g}' / 'data', one.name)
    (noisier.folder / 'micrographs').mkdir(parents=True, exist_ok=True)
    for name in ('coordinates', 'map', 'dataset.json'):
        if not (noisier.folder / name).exists():
            (noisier.folder / name).symlink_to((one.folder / name).resolve())
    for index, path in enumerate(sorted((one.folder / 'micrographs').glob('*.mrc'))):
        image, pixel_size = read_micrograph(path)
        noise = randomise_phases(image, np.random.default_rng(index))
        write_image(noisier.folder / 'micrographs' / path.name, image + factor * noise, pixel_size)
    return noisier


def evaluate(one: DataSet, arguments: argparse.Namespace) -> None:
    """Simulate, generate, learn and evaluate one data set; steps that are finished are kept."""
    work = arguments.work / one.name
    keep_flags(arguments, one, work)
    learned, judges = one.list_part(False), one.list_part(True)
    simulate = ['simulate', '--volume', one.map, '--micrographs', *learned, '--coordinates', *one.list_picks(learned),
                '--symmetry', one.symmetry, '--n-micrographs', N_MICROGRAPHS, '--seed', 1]
    run(simulate, work / 'simulated', 'manifest.json')
    run(['generate', '--dataset', work / 'simulated', '--n-micrographs', N_MICROGRAPHS, '--seed', 2],
        work / 'measured_noise', 'manifest.json')
    generated = [work / 'measured_noise']
    encoders: list[Path] = []
    if arguments.train_minutes:
        learn = ['train', '--dataset', work / 'simulated', '--micrographs', *learned, '--topaz-weights',
                 arguments.topaz]
        steps = ('--max-steps', arguments.train_steps) if arguments.train_steps else ()
        run([*learn, *steps, '--max-minutes', arguments.train_minutes], work / 'model', COST)
        # shown whether it is better than its prior or not
        run(['generate', '--model', work / 'model', '--force', '--dataset', work / 'simulated', '--n-micrographs',
             N_MICROGRAPHS, '--seed', 2], work / 'learned', 'manifest.json')
        generated.append(work / 'learned')
        encoders = [work / name for name in SAMPLINGS]
        for folder, sampling in zip(encoders, SAMPLINGS.values(), strict=True):
            run([*learn, '--sampling', sampling, '--contrastive-weight', 1, '--learning-rate', 5e-4, '--held-out', 0,
                 '--max-steps', ENCODER_STEPS], folder, COST)
    picking = ['--picking', '--topaz', Path(arguments.topaz) / 'bin' / 'topaz', '--picking-real', *learned,
               '--picking-coordinates', *one.list_picks(learned), '--picking-seeds', arguments.picking_seeds,
               '--picking-iterations', *arguments.picking_iterations, '--picking-arms', *arguments.picking_arms,
               *(folder.name for folder in generated[1:]),
               '--picking-scratch' if arguments.picking_scratch else '--no-picking-scratch']
    run(['evaluate', '--generated', *generated, '--real', *judges, '--coordinates', *one.list_picks(judges),
         '--topaz-weights', arguments.topaz, *(picking if arguments.picking else ()),
         *(('--models', *encoders) if encoders else ()), '--poses', '--reconstruction', '--symmetry', one.symmetry],
        work / 'report', 'report.html')


def run(command: list, output: Path, last: str) -> None:
    """Run one command of cryogem unless its last file is there; write down its time and most memory of a process."""
    if (output / last).exists():
        return
    words = ['cryogem', *map(str, command), '--output', str(output)]
    sys.stdout.write(f'$ {shlex.join(words)}\n')
    sys.stdout.flush()
    started = time.monotonic()
    with subprocess.Popen([sys.executable, '-m', *words], cwd=ROOT) as process:
        _, status, used = os.wait4(process.pid, 0)          # wait() would not tell what was used
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    cost = {'seconds': time.monotonic() - started, 'processor_seconds': used.ru_utime + used.ru_stime,
            'gigabytes': used.ru_maxrss / 2 ** 20}
    (output / COST).write_text(json.dumps({key: round(value, 2) for key, value in cost.items()}) + '\n')


def keep_flags(arguments: argparse.Namespace, one: DataSet, work: Path) -> None:
    """Write down what a data set was evaluated with, for the results: what differs from the defaults, but for paths."""
    flags = [f'--sets {one.origin or one.name}']
    flags += [f'--{key.replace("_", "-")} {value:g}' for key in ('train_minutes', 'train_steps', 'added_noise')
             if (value := getattr(arguments, key))]
    if arguments.picking:
        flags += [f'--picking-seeds {arguments.picking_seeds}',
                  f'--picking-iterations {" ".join(arguments.picking_iterations)}',
                  f'--picking-arms {" ".join(arguments.picking_arms)}']
        flags += [] if arguments.picking_scratch else ['--no-picking-scratch']
    else:
        flags.append('--no-picking')
    work.mkdir(parents=True, exist_ok=True)
    (work / 'flags.txt').write_text(' '.join(flags))


def write_results(arguments: argparse.Namespace) -> None:
    """Write the results from the reports that are there, below what people wrote about them."""
    path: Path = arguments.results
    old = path.read_text() if path.exists() else ''
    above = old.split(ABOVE)[0] if ABOVE in old else '# Results on real micrographs\n\n'
    parts = [
        'Written by `make evaluate` from the reports of `cryogem evaluate`. Each data set is split by micrograph: from '
        'one half everything is calibrated and learned, the other half judges. **Bold**: best of a row, *italics*: '
        'worst, real micrographs aside. (×n): n times what two halves of the real judges differ by.\n']
    for report in sorted(arguments.work.glob('*/report/report.json')):
        parts += describe_set(report, path.parent / 'images' / 'results')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{above}{ABOVE}\n' + '\n'.join(parts))
    sys.stdout.write(f'results: {path}\n')


def describe_set(report: Path, pictures: Path) -> list[str]:
    """Return the lines of one data set; its figures are copied to `pictures`."""
    name = report.parents[1].name
    numbers = json.loads(report.read_text())
    parts = [f'## {name}\n']
    flags = report.parents[1] / 'flags.txt'
    if flags.exists():
        parts.append(f"`make evaluate EVALUATE_FLAGS='{flags.read_text()}'`\n")
    parts += [f'{one}\n' for one in numbers['verdict']]
    parts += [f'**Warning:** {one}\n' for one in numbers['warnings']]
    parts += [f'**Looks wrong:** {one["name"]} ({arm}): {one["text"]}\n'
              for arm, found in numbers['suspicious'].items() for one in found]
    parts.append((report.parent / 'table.md').read_text())
    command = json.loads((report.parent / 'config.json').read_text())
    parts.append(f'\nJudged by {numbers["n_real"]} micrographs that the calibration has not seen; '
                 f'{numbers["n_generated"]} generated of each set; seeds {command["seed"]} to '
                 f'{command["seed"] + command["n_seeds"] - 1}.\n')
    pictures.mkdir(parents=True, exist_ok=True)
    for figure in FIGURES:
        if (report.parent / figure).exists():
            shutil.copy(report.parent / figure, pictures / f'{name}_{figure}')
            parts.append(f'![{name}: {figure}](images/results/{name}_{figure})')
    return [*parts, '']


if __name__ == '__main__':
    main()
