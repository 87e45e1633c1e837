"""Generated micrographs: the files, the grey values and spectra of each noise model, and what cannot be mixed."""

import json
import shutil

import mrcfile
import numpy as np
import pytest
import starfile
import torch

from cryogem.__main__ import main
from cryogem.dataset.reader import read_calibration, read_record
from cryogem.imaging.exposure import add_ice
from cryogem.translation.paper import PaperGenerator
from tests.commands.experiment import write_mrc
from tests.phantom import GaussianPhantom

NOISE_MODELS = ('gaussian', 'poisson', 'poisson_gaussian', 'measured')


@pytest.fixture(scope='module', params=[*NOISE_MODELS, 'trained'])
def run(request, simulated, tmp_path_factory):
    """A finished run of two micrographs with both particle stacks, by each noise model and by the trained one."""
    out = tmp_path_factory.mktemp('generate') / request.param
    name = str(request.getfixturevalue('model')) if request.param == 'trained' else request.param
    assert main(['generate', '--model', name, '--dataset', str(simulated), '--n-micrographs', '2', '--particles',
                 'both', '--seed', '4', '--output', str(out)]) == 0
    return request.param, out


def find_weights(folder):
    """Return the file with the weights of a model folder."""
    return next(folder.glob('*.safetensors'))


def read_contrast(folder, name):
    """Return micrograph, clean image and mask, the micrograph in contrast units."""
    record = read_record(folder, name)
    image, clean, mask = (mrcfile.read(folder / kind / f'{name}.mrc') for kind in ('micrographs', 'clean', 'masks'))
    return (image - record.grey_mean) / record.grey_sd, clean, mask


def measure_flatness(contrast):
    """Return the power of the finest frequencies over that of the middle ones; 1 for white noise."""
    power = np.abs(np.fft.fft2(contrast - contrast.mean())) ** 2
    radius = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in contrast.shape), indexing='ij'))
    return power[(radius > 0.4) & (radius < 0.5)].mean() / power[(radius > 0.1) & (radius < 0.2)].mean()


def test_the_folder_holds_exactly_the_files_of_the_contract(run):
    _, out = run
    names = ['generated_00001', 'generated_00002']
    expected = ['config.json', 'outline.json', 'manifest.json', 'calibration.json', 'micrographs.star',
                'coordinates.txt', 'particles.star', 'particles_other.star', 'specimen/volume_01.mrc',
                'specimen/mask_01.mrc', 'particles.mrcs', 'clean_particles.mrcs', 'clean_particles.star']
    expected += [f'{kind}/{name}.{suffix}' for name in names for kind, suffix in (
        ('micrographs', 'mrc'), ('clean', 'mrc'), ('masks', 'mrc'), ('masks', 'png'), ('records', 'json'),
        ('coordinates', 'star'))]

    assert sorted(str(path.relative_to(out)) for path in out.rglob('*') if path.is_file()) == sorted(expected)
    assert json.loads((out / 'manifest.json').read_text())['command'] == 'generate'


def test_the_signal_is_in_the_micrograph_under_noise(run):
    noise, out = run
    for name in ('generated_00001', 'generated_00002'):
        contrast, clean, mask = read_contrast(out, name)
        assert np.isfinite(contrast).all()
        correlation = np.corrcoef(contrast.ravel(), clean.ravel())[0, 1]
        # shot noise at the default dose leaves little of a particle, the others let it be seen
        assert (0.01 if 'poisson' in noise else 0.1) < correlation < 0.95
        assert contrast[mask > 0].mean() < contrast[mask == 0].mean()


def test_the_grey_values_are_those_of_the_real_micrographs(run, real_set):
    _, out = run
    real = np.stack([mrcfile.read(path) for path in sorted((real_set.folder / 'micrographs').iterdir())])
    made = np.stack([mrcfile.read(path) for path in sorted((out / 'micrographs').iterdir())])

    assert made.mean() == pytest.approx(real.mean(), abs=0.3 * real.std())
    assert made.std() == pytest.approx(real.std(), rel=0.25)


def test_noise_is_white_for_the_baselines_and_coloured_where_it_was_measured(run, real_set):
    noise, out = run
    contrast, clean, _ = read_contrast(out, 'generated_00001')
    flatness = measure_flatness(contrast - np.polyfit(clean.ravel(), contrast.ravel(), 1)[0] * clean)
    real = np.mean([measure_flatness(mrcfile.read(path))
                    for path in (real_set.folder / 'micrographs').iterdir()])

    assert real < 0.8
    if noise in ('measured', 'trained'):
        assert flatness == pytest.approx(real, rel=0.35)
    else:
        assert flatness == pytest.approx(1, abs=0.1)


def test_particle_images_follow_their_table_and_hold_their_particle(run):
    noise, out = run
    images, clean = (mrcfile.read(out / name) for name in ('particles.mrcs', 'clean_particles.mrcs'))
    table = starfile.read(out / 'particles.star', always_dict=True)['particles']
    assert len(images) == len(clean) == len(table)

    def agree(others):
        return np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(images, others, strict=True)])

    assert agree(clean) > (0.03 if 'poisson' in noise else 0.15)
    assert agree(np.roll(clean, 1, axis=0)) < 0.6 * agree(clean)


def test_a_trained_model_changes_the_prior_but_not_the_labels(simulated, model, tmp_path):
    for name, which in (('measured', 'measured'), ('trained', str(model))):
        assert main(['generate', '--model', which, '--dataset', str(simulated), '--n-micrographs', '1', '--output',
                     str(tmp_path / name)]) == 0

    name = 'generated_00001'
    images = [mrcfile.read(tmp_path / folder / 'micrographs' / f'{name}.mrc') for folder in ('measured', 'trained')]
    assert not np.array_equal(*images)
    assert np.corrcoef(images[0].ravel(), images[1].ravel())[0, 1] > 0.9
    for file in (f'clean/{name}.mrc', f'masks/{name}.mrc', f'coordinates/{name}.star', 'particles.star'):
        assert (tmp_path / 'measured' / file).read_bytes() == (tmp_path / 'trained' / file).read_bytes()


@pytest.mark.parametrize('snr', [0.5, 0.05])
def test_the_signal_to_noise_ratio_that_is_asked_for_is_obeyed(snr, simulated, tmp_path):
    out = tmp_path / 'out'
    assert main(['generate', '--model', 'gaussian', '--snr', str(snr), '--dataset', str(simulated),
                 '--n-micrographs', '1', '--output', str(out)]) == 0
    contrast, clean, _ = read_contrast(out, 'generated_00001')
    signal = add_ice(clean, read_record(out, 'generated_00001'), read_calibration(out, 'dataset'))
    correlation = np.corrcoef(contrast.ravel(), signal.ravel())[0, 1]

    assert correlation ** 2 / (1 - correlation ** 2) == pytest.approx(snr, rel=0.1)


def test_more_dose_leaves_less_noise(simulated, tmp_path):
    agreement = []
    for dose in ('2', '2000'):
        out = tmp_path / dose
        assert main(['generate', '--model', 'poisson', '--dose', dose, '--dataset', str(simulated),
                     '--n-micrographs', '1', '--output', str(out)]) == 0
        contrast, clean, _ = read_contrast(out, 'generated_00001')
        agreement.append(np.corrcoef(contrast.ravel(), clean.ravel())[0, 1])

    assert agreement[0] < 0.2
    assert agreement[1] > 0.5


def test_another_map_takes_the_place_of_that_of_the_simulate_run(simulated, tmp_path):
    z, y, x = np.mgrid[:48, :48, :48] - 24
    with mrcfile.new(tmp_path / 'ball.mrc') as file:
        file.set_data((np.sqrt(x ** 2 + y ** 2 + z ** 2) < 16).astype(np.float32))
        file.voxel_size = 2.5
    out = tmp_path / 'out'
    assert main(['generate', '--dataset', str(simulated), '--volume', str(tmp_path / 'ball.mrc'), '--n-micrographs',
                 '1', '--particles', 'clean', '--output', str(out)]) == 0

    with mrcfile.open(out / 'specimen' / 'volume_01.mrc') as file:
        assert float(file.voxel_size.x) == pytest.approx(5)
        density = file.data
        r = np.hypot(*np.mgrid[:len(density), :len(density)] - len(density) // 2)
        middle = density[len(density) // 2]
        assert middle[r < 5].min() > 0.5                                # 40 Å at 5 Å/px
        assert np.abs(middle[r > 11]).max() < 0.2
    images = mrcfile.read(out / 'clean_particles.mrcs')
    turned = np.rot90(images, axes=(1, 2))[:, :-1, 1:]                  # a ball is the same from every side
    original = images[:, 1:, 1:]
    pairs = zip(original, np.roll(turned, 0), strict=False)
    assert np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs if a.shape == b.shape]) > 0.8


def test_a_model_of_another_pixel_size_is_refused(simulated, model, tmp_path, fail):
    other = shutil.copytree(model, tmp_path / 'model')
    card = json.loads((other / 'card.json').read_text())
    card['description']['pixel_size'] = 2.5
    (other / 'card.json').write_text(json.dumps(card))
    message = fail(['generate', '--model', str(other), '--dataset', str(simulated), '--output', str(tmp_path / 'out')])

    assert message.startswith(f"model '{other}' was trained at 2.5 Å/px but the dataset has 5")
    assert not (tmp_path / 'out').exists()


def test_a_missing_dataset_is_refused(tmp_path, fail):
    message = fail(['generate', '--dataset', str(tmp_path / 'none'), '--output', str(tmp_path / 'out')])

    assert message == (f"dataset '{tmp_path / 'none'}' holds no finished simulate run; "
                       'give the output folder of cryogem simulate')
    assert not (tmp_path / 'out').exists()


def test_a_simulate_run_that_was_not_finished_is_refused(simulated, tmp_path, fail):
    part = shutil.copytree(simulated, tmp_path / 'part')
    (part / 'manifest.json').unlink()

    assert 'holds no finished simulate run' in fail(
        ['generate', '--dataset', str(part), '--output', str(tmp_path / 'out')])
    assert not (tmp_path / 'out').exists()


def test_a_generate_run_is_no_dataset(generated, tmp_path, fail):
    message = fail(['generate', '--dataset', str(generated), '--output', str(tmp_path / 'out')])

    assert message.startswith(f"dataset '{generated}' holds a generate run")
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('damage', [
    lambda folder: find_weights(folder).write_bytes(b'PK'), lambda folder: find_weights(folder).unlink(),
    lambda folder: (folder / 'card.json').unlink(), lambda folder: (folder / 'card.json').write_text('{'),
    shutil.rmtree])
def test_a_damaged_or_missing_model_is_refused(damage, simulated, model, tmp_path, fail):
    other = shutil.copytree(model, tmp_path / 'model')
    damage(other)
    message = fail(['generate', '--model', str(other), '--dataset', str(simulated), '--output', str(tmp_path / 'out')])

    assert message.startswith('model ')
    assert str(other) in message
    assert not (tmp_path / 'out').exists()


def test_an_unknown_noise_model_is_named_as_a_missing_model(simulated, tmp_path, fail):
    message = fail(['generate', '--model', 'gausian', '--dataset', str(simulated), '--output', str(tmp_path / 'out')])

    assert message.startswith("model 'gausian' ")
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(('depth', 'is_refused'), [(5, False), (7, True)])
def test_a_published_network_takes_frames_of_its_multiples_only(depth, is_refused, simulated, tmp_path, fail):
    torch.save(PaperGenerator(depth, 2).state_dict(), tmp_path / 'latest_net_G.pth')
    network, out = tmp_path / 'network', tmp_path / 'out'
    assert main(['import-checkpoint', str(tmp_path / 'latest_net_G.pth'), '--output', str(network)]) == 0
    arguments = ['generate', '--model', str(network), '--dataset', str(simulated), '--n-micrographs', '1', '--output',
                 str(out)]
    if is_refused:
        message = fail(arguments)                                       # frames of 256 x 288: 288 is no multiple of 128
        assert 'takes frames whose sides are multiples of 128 px, the dataset has 288 x 256' in message
        assert not out.exists()
    else:
        assert main(arguments) == 0
        assert mrcfile.read(out / 'micrographs' / 'generated_00001.mrc').shape == (256, 288)


def test_a_damaged_dataset_is_named(simulated, tmp_path, fail):
    part = shutil.copytree(simulated, tmp_path / 'part')
    (part / 'calibration.json').write_text('{"pixel_size": 5}')
    message = fail(['generate', '--dataset', str(part), '--output', str(tmp_path / 'out')])

    assert message.startswith('calibration is damaged or of another version')
    assert not (tmp_path / 'out').exists()


def test_an_odd_box_size_is_refused(simulated, tmp_path, fail):
    message = fail(['generate', '--dataset', str(simulated), '--box-size', '33', '--output', str(tmp_path / 'out')])

    assert message == 'box_size cannot be 33; use the even number 34'
    assert not (tmp_path / 'out').exists()


def test_a_frame_too_large_for_the_network_goes_through_it_in_tiles_that_give_the_same(simulated, model, tmp_path):
    made = []
    for memory in ('1', '0.004'):
        assert main(['generate', '--model', str(model), '--force', '--dataset', str(simulated), '--n-micrographs', '1',
                     '--network-memory', memory, '--output', str(tmp_path / memory)]) == 0
        made.append(mrcfile.read(tmp_path / memory / 'micrographs' / 'generated_00001.mrc'))

    assert np.abs(made[1] - made[0]).max() < 1e-4 * made[0].std()


def test_a_network_that_may_take_too_little_memory_is_refused(simulated, model, tmp_path, fail):
    message = fail(['generate', '--model', str(model), '--force', '--dataset', str(simulated), '--network-memory',
                    '0.0001', '--output', str(tmp_path / 'out')])
    assert message.startswith('network_memory 0.0001')
    assert not (tmp_path / 'out').exists()


def test_pixels_of_one_angstrom_are_taken_where_they_are_said(tmp_path, real_set):
    rng = np.random.default_rng(0)
    for number in range(2):
        write_mrc(tmp_path / f'real_{number}.mrc', rng.normal(10, 2, (256, 256)).astype(np.float32), 1.0)
    write_mrc(tmp_path / 'map.mrc', GaussianPhantom(real_set.phantom.positions / 2, real_set.phantom.widths / 3,
                                                    real_set.phantom.heights).render(80, 1.0), 1.0)
    assert main(['simulate', '--volume', str(tmp_path / 'map.mrc'), '--volume-pixel-size', '1', '--micrographs',
                 str(tmp_path / 'real_*.mrc'), '--pixel-size', '1', '--particles-per-micrograph', '6:0',
                 '--signal-to-noise', '0.1', '--n-micrographs', '1', '--output', str(tmp_path / 'simulated')]) == 0
    assert main(['generate', '--dataset', str(tmp_path / 'simulated'), '--n-micrographs', '1', '--output',
                 str(tmp_path / 'out')]) == 0

    with mrcfile.open(tmp_path / 'out' / 'micrographs' / 'generated_00001.mrc') as file:
        assert float(file.voxel_size.x) == 1.0
