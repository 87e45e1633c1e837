"""The two real data sets, where they are at hand: simulate, measured noise, evaluate, and the fitted CTFs."""

import contextlib
import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryogem.__main__ import main
from cryogem.commands.evaluation_inputs import list_labels, read_sets
from cryogem.evaluation.ctf_check import check_independently, has_independent_fit

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[3] / 'shared' / 'data'
SETS = ('apoferritin_10146', 'ribosome80S_10028')


@dataclass(frozen=True)
class RealRun:
    """A real data set and what was made from it."""

    source: Path
    simulated: Path
    generated: Path
    report: Path
    log: str

    def read_calibration(self) -> dict:
        return json.loads((self.simulated / 'calibration.json').read_text())

    def read_known_defoci(self) -> dict[str, float]:
        """Return the rough defocus (Å) of each micrograph, which others fitted."""
        with (self.source / 'micrographs.csv').open() as file:
            return {Path(row['micrograph']).stem: float(row['defocus_A_approx']) for row in csv.DictReader(file)}


@pytest.fixture(scope='module', params=SETS)
def run(request, tmp_path_factory):
    """Simulate, generate with measured noise and evaluate: four micrographs of each set."""
    source, folder = DATA / request.param, tmp_path_factory.mktemp(request.param)
    if not source.exists():
        pytest.skip(f'the real data set {request.param} is not at hand')
    volume, = sorted((source / 'map').glob('*.mrc'))
    simulated, generated, report = (folder / name for name in ('simulated', 'generated', 'report'))
    micrographs, coordinates = str(source / 'micrographs' / '*.mrc'), str(source / 'coordinates' / '*.star')
    with contextlib.redirect_stdout(io.StringIO()) as log:
        assert main(['simulate', '--volume', str(volume), '--micrographs', micrographs, '--coordinates', coordinates,
                     '--n-micrographs', '4', '--output', str(simulated)]) == 0
        assert main(['generate', '--dataset', str(simulated), '--n-micrographs', '4', '--output', str(generated)]) == 0
        assert main(['evaluate', '--generated', str(generated), '--real', micrographs, '--coordinates', coordinates,
                     '--output', str(report)]) == 0
    return RealRun(source, simulated, generated, report, log.getvalue())


def test_measured_noise_has_the_spectrum_of_the_real_micrographs(run):
    report = json.loads((run.report / 'report.json').read_text())

    assert report['radial_power_spectrum']['log_rms'] < 0.35
    assert report['n_generated'] == 4
    assert report['n_real'] == len(run.read_known_defoci())


def test_the_ctf_of_every_real_micrograph_is_fitted_and_logged(run):
    names = sorted(run.read_known_defoci())

    assert [one['name'] for one in run.read_calibration()['micrographs']] == names
    for name in names:
        assert f'{name}: defocus ' in run.log


def test_the_fitted_defoci_are_those_that_others_found(run):
    known = run.read_known_defoci()
    fitted = {one['name']: one['ctf'] for one in run.read_calibration()['micrographs'] if one['ctf']}
    is_near = [name in fitted and abs((fitted[name]['defocus_u'] + fitted[name]['defocus_v']) / 2 / defocus - 1) < 0.05
               for name, defocus in known.items()]

    assert np.mean(is_near) >= 0.8


@pytest.mark.skipif(not has_independent_fit(), reason='torch-ctf-estimation is not installed')
def test_an_independent_fit_finds_the_label_of_measured_noise_and_not_that_of_white_noise(run, tmp_path):
    shares = {}
    for noise in ('measured', 'gaussian'):
        made = tmp_path / noise
        assert main(['generate', '--model', noise, '--dataset', str(run.simulated), '--n-micrographs', '10',
                     '--output', str(made)]) == 0
        frames = read_sets([str(made)])[0].frames
        shares[noise] = check_independently(frames, list_labels(frames), run.read_calibration()['pixel_size']).share

    assert shares['measured'] >= 0.9
    assert shares['gaussian'] < 0.9


def test_generated_micrographs_have_the_size_density_and_grey_values_of_the_real_ones(run):
    real = [mrcfile.read(path).astype(np.float32) for path in sorted((run.source / 'micrographs').glob('*.mrc'))]
    made = [mrcfile.read(path) for path in sorted((run.generated / 'micrographs').glob('*.mrc'))]
    known = json.loads((run.source / 'dataset.json').read_text())
    manifest = json.loads((run.generated / 'manifest.json').read_text())
    binning = manifest['pixel_size'] / known['apix']

    assert binning == pytest.approx(round(binning))
    assert np.array(made[0].shape) * binning == pytest.approx(np.array(real[0].shape), abs=binning)
    assert np.median(made) == pytest.approx(np.median(real), abs=float(np.std(real)))
    picks = [len((run.source / 'coordinates' / path.name).with_suffix('.csv').read_text().splitlines()) - 1
             for path in sorted((run.source / 'micrographs').glob('*.mrc'))]
    assert 0.7 < manifest['n_particles'] / 4 / np.mean(picks) < 1.5


def test_the_clean_pictures_are_dark_at_the_coordinates(run):
    for path in sorted((run.generated / 'clean').glob('*.mrc')):
        clean, mask = mrcfile.read(path), mrcfile.read(run.generated / 'masks' / path.name)
        assert clean[mask > 0].mean() < clean[mask == 0].mean() - 0.1


def test_a_short_training_runs_on_the_real_micrographs(run, tmp_path):
    model, out = tmp_path / 'model', tmp_path / 'out'
    assert main(['train', '--dataset', str(run.simulated), '--micrographs', str(run.source / 'micrographs' / '*.mrc'),
                 '--max-steps', '2', '--crop-size', '64', '--batch-size', '2', '--output', str(model)]) == 0
    assert main(['generate', '--model', str(model), '--dataset', str(run.simulated), '--n-micrographs', '1',
                 '--output', str(out)]) == 0
    assert np.isfinite(mrcfile.read(out / 'micrographs' / 'generated_00001.mrc')).all()
