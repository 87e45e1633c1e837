"""`cryogem train`: the model folder, crops of both kinds, going on, and what is refused."""

import csv
import dataclasses
import hashlib
import json
import shutil
import sys
import types
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from cryogem.__main__ import main
from cryogem.commands.crops import FreshCrops, RealCrops, SimulatedCrops, split_micrographs
from cryogem.commands.hallucination import judge_hallucinations, list_failures
from cryogem.commands.judging import keep_prior
from cryogem.commands.model_facts import describe_card, name_maker
from cryogem.commands.simulate import build_protocol
from cryogem.commands.training_plan import build_training_protocol, leave_out, plan_training
from cryogem.config import GenerateConfig, TrainConfig, build_config
from cryogem.dataset.reader import read_dataset
from cryogem.evaluation.pickers import has_blob_picker
from cryogem.evaluation.programs import ProgramError
from cryogem.imaging.exposure import TRAINED, draw_record
from cryogem.imaging.spectrum import N_SHELLS
from cryogem.translation import load_generator


@pytest.fixture
def arguments(real_set, simulated, tmp_path):
    """A training of two steps on tiny crops."""
    return ['train', '--dataset', str(simulated), '--micrographs', real_set.micrographs, '--max-steps', '2',
            '--crop-size', '48', '--batch-size', '2', '--checkpoint-every', '1', '--output', str(tmp_path / 'model')]


def read_steps(folder):
    """Return the rows of the metrics without their seconds."""
    with (folder / 'metrics.csv').open() as file:
        return [{key: value for key, value in row.items() if key != 'seconds'} for row in csv.DictReader(file)]


def test_the_folder_holds_exactly_the_files_of_a_model(model):
    assert sorted(str(path.relative_to(model)) for path in model.rglob('*') if path.is_file()) == [
        'calibration.json', 'card.json', 'checkpoint.pt', 'config.json', 'metrics.csv', 'samples/step_000001.png',
        'samples/step_000002.png', 'weights_000002.safetensors']
    assert [row['step'] for row in read_steps(model)] == ['1', '2']


def test_the_card_says_where_the_model_comes_from(model, simulated):
    description = json.loads((model / 'card.json').read_text())['description']
    config = json.loads((model / 'config.json').read_text())

    assert (description['steps'], description['preset'], description['pixel_size']) == (2, 'fast', 5.0)
    assert (description['n_real_micrographs'], description['n_simulated_micrographs']) == (3, 3)
    assert (config['command'], config['crop_size'], config['dataset']) == ('train', 48, str(simulated))
    assert (model / 'calibration.json').read_bytes() == (simulated / 'calibration.json').read_bytes()


def test_the_card_holds_data_time_device_seed_versions_and_checksums(judged, simulated):
    card = json.loads((judged / 'card.json').read_text())
    about = card['description']

    assert about['seconds'] > 0
    assert about['device'] in ('cpu', 'cuda', 'cuda:0')
    assert about['seed'] == 0
    assert about['data']['real_micrographs'] == ['mic_1.mrc', 'mic_2.mrc', 'mic_3.mrc']
    digest = hashlib.sha256((simulated / 'manifest.json').read_bytes()).hexdigest()
    assert about['data']['dataset_manifest_sha256'] == digest
    assert card['weights_sha256'] == hashlib.sha256((judged / card['weights']).read_bytes()).hexdigest()
    assert card['versions']['torch'] == torch.__version__
    assert set(about['realism']) == {'model', 'prior'}
    assert set(about['gates']) == {'realism', 'signal', 'hallucinations'}


def test_the_trained_module_is_loaded_in_eval_mode_and_keeps_the_shape(model):
    generator = load_generator(model)
    image = torch.randn(2, 5, 40, 56)                  # prior, signal and three textures

    assert not generator.training
    with torch.no_grad():
        output = generator(image)
    assert (output.shape, output.dtype) == ((2, 1, 40, 56), torch.float32)
    assert 0 < (output - image[:, :1]).abs().mean() < 1


def test_a_training_that_is_continued_equals_an_uninterrupted_one(model, arguments, tmp_path):
    arguments[arguments.index('2')] = '1'
    assert main(arguments) == 0
    assert len(read_steps(tmp_path / 'model')) == 1
    arguments[arguments.index('--max-steps') + 1] = '2'
    assert main([*arguments, '--continue']) == 0

    assert read_steps(tmp_path / 'model') == read_steps(model)
    first, second = (load_generator(folder).state_dict() for folder in (tmp_path / 'model', model))
    assert all(torch.equal(first[key], second[key]) for key in second)


def test_a_training_is_not_overwritten(model, arguments, tmp_path, fail):
    shutil.copytree(model, tmp_path / 'model')
    message = fail(arguments)

    assert message.startswith(f"output '{tmp_path / 'model'}' is not empty; choose another folder, or say --continue")
    assert (tmp_path / 'model' / 'checkpoint.pt').read_bytes() == (model / 'checkpoint.pt').read_bytes()


@pytest.mark.parametrize(('flag', 'value'), [('learning_rate', '0.5'), ('crop_size', '64'), ('batch_size', '3')])
def test_a_training_is_not_continued_with_another_setting(model, arguments, tmp_path, fail, flag, value):
    shutil.copytree(model, tmp_path / 'model')
    message = fail([*arguments, '--continue', '--' + flag.replace('_', '-'), value])

    assert message.startswith(f'{flag} is {value} but the run in ')
    assert 'use the same value' in message


def test_crops_larger_than_the_simulated_frame_are_refused_with_the_largest_that_fits(arguments, tmp_path, fail):
    arguments[arguments.index('48')] = '272'

    assert fail(arguments) == 'crop_size 272 is larger than the simulated micrographs of 288 x 256 px; use at most 256'
    assert not (tmp_path / 'model').exists()


def test_crops_larger_than_the_real_frame_are_refused(arguments, tmp_path, fail):
    small = tmp_path / 'small.mrc'
    with mrcfile.new(small) as file:
        file.set_data(np.random.default_rng(0).standard_normal((40, 120)).astype(np.float32))
        file.voxel_size = 5.0
    arguments[arguments.index('--micrographs') + 1] = str(small)

    assert fail(arguments) == (f"crop_size 48 is larger than the micrograph '{small}' of 120 x 40 px; use at most 32")
    assert not (tmp_path / 'model').exists()


def test_a_crop_size_that_is_no_multiple_of_16_is_refused(arguments, tmp_path, fail):
    arguments[arguments.index('48')] = '50'

    assert fail(arguments) == 'crop_size cannot be 50; use the multiple of 16 48'
    assert not (tmp_path / 'model').exists()


def test_a_pattern_that_matches_nothing_is_named(arguments, tmp_path, fail):
    arguments[arguments.index('--micrographs') + 1] = str(tmp_path / '*.mrc')

    assert fail(arguments) == (
        f"micrographs '{tmp_path / '*.mrc'}' matches no file; check the path and quote the pattern")
    assert not (tmp_path / 'model').exists()


def test_a_missing_dataset_is_refused(arguments, tmp_path, fail):
    arguments[arguments.index('--dataset') + 1] = str(tmp_path / 'none')

    assert fail(arguments).startswith(f"dataset '{tmp_path / 'none'}' holds no finished simulate run")
    assert not (tmp_path / 'model').exists()


def test_micrographs_without_pixel_size_need_it_said(arguments, tmp_path, fail):
    bare = tmp_path / 'bare.mrc'
    with mrcfile.new(bare) as file:
        file.set_data(np.random.default_rng(0).standard_normal((96, 120)).astype(np.float32))
    arguments[arguments.index('--micrographs') + 1] = str(bare)

    assert fail(arguments).startswith(f"pixel_size is missing: micrograph '{bare}'")
    assert not (tmp_path / 'model').exists()
    assert main([*arguments, '--pixel-size', '5']) == 0


def test_simulated_crops_are_noisy_cuts_of_the_micrographs_with_their_masks(simulated):
    dataset = read_dataset(simulated)
    crops = SimulatedCrops(dataset, 128)
    agreement, elsewhere = [], []
    for seed in range(6):
        crop = crops.draw(np.random.default_rng(seed), 128)
        image, mask = crop.prior, crop.mask
        assert (image.shape, image.dtype, mask.shape, mask.dtype) == ((128, 128), np.float32, (128, 128), bool)
        places = []
        for name in dataset.manifest['micrographs']:
            clean, whole = dataset.read_pair(name)
            windows = np.lib.stride_tricks.sliding_window_view(whole, (128, 128))
            begin_alike = np.argwhere((windows[:, :, 64] == mask[64]).all(axis=2))      # one row first: it is quicker
            places += [clean[y:y + 128, x:x + 128] for y, x in begin_alike if (windows[y, x] == mask).all()]
        assert len(places) == 1
        agreement.append(np.corrcoef(places[0].ravel(), image.ravel())[0, 1])
        elsewhere.append(np.corrcoef(np.roll(places[0], 64, axis=1).ravel(), image.ravel())[0, 1])
    assert min(agreement) > 0.05
    assert np.mean(agreement) > 3 * np.abs(np.mean(elsewhere))


@pytest.mark.parametrize('is_fresh', [False, True])
def test_crops_are_noisier_where_the_frames_are(is_fresh, plan):
    # loud at the upper and lower edge, quiet between; crops of 256 px are as high as the frames
    micrographs = tuple(dataclasses.replace(one, noise_map=((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.6, 0.0, 0.0)))
                        for one in plan.dataset.calibration.micrographs)
    dataset = dataclasses.replace(
        plan.dataset, calibration=dataclasses.replace(plan.dataset.calibration, micrographs=micrographs))
    crops = FreshCrops(dataset, build_training_protocol(plan.config, dataset), 256) if is_fresh else SimulatedCrops(
        dataset, 256)
    drawn = [crops.draw(np.random.default_rng(seed), 256) for seed in range(4)]
    noise = np.stack([one.prior - one.signal for one in drawn])

    expected = np.exp(0.6 * np.cos(2 * np.pi * (np.arange(256) + 0.5) / 256))
    bands = [slice(start, start + 32) for start in range(0, 256, 32)]
    found = np.array([noise[:, band].std() for band in bands])
    wanted = np.array([np.sqrt((expected[band] ** 2).mean()) for band in bands])
    np.testing.assert_allclose(found / found.mean(), wanted / wanted.mean(), rtol=0.1)


@pytest.fixture(scope='module')
def plan(simulated, real_set):
    """A plan of training on fresh crops of 128 px, half of each micrograph held out."""
    return plan_training(build_config(TrainConfig, {
        'dataset': str(simulated), 'micrographs': [real_set.micrographs], 'output': 'unused', 'held_out': 0.5}))


def test_fresh_crops_hold_particles_that_no_other_crop_and_no_run_holds(plan, simulated):
    crops = [plan.simulated(np.random.default_rng(seed), 128) for seed in range(8)]
    again = plan.simulated(np.random.default_rng(3), 128)

    assert np.array_equal(again.prior, crops[3].prior)
    cleans = [crop.signal[crop.mask] for crop in crops if crop.mask.any()]
    assert len(cleans) >= 6
    assert len({clean.tobytes() for clean in cleans}) == len(cleans)
    dataset = read_dataset(simulated)
    # poses are drawn from a stream of their own
    records = [dataset.read_record(name) for name in dataset.manifest['micrographs']]
    known = {particle.rot for record in records for particle in record.particles}
    record = draw_record(dataclasses.replace(build_protocol(dataset.config, dataset.calibration, 120.0),
                                             purpose=TRAINED), dataset.calibration, dataset.load_ensemble(), 0)
    assert not known & {particle.rot for particle in record.particles}


def test_fresh_crops_are_as_full_of_particles_as_the_micrographs_are(plan, simulated):
    dataset = read_dataset(simulated)
    fresh = np.mean([plan.simulated(np.random.default_rng(seed), 128).mask.mean() for seed in range(40)])
    whole = np.mean([dataset.read_pair(name)[1].mean() for name in dataset.manifest['micrographs']])

    assert fresh == pytest.approx(whole, rel=0.25)


def test_the_signal_of_a_fresh_crop_is_in_its_prior(plan):
    agreement = []
    for seed in range(8):
        crop = plan.simulated(np.random.default_rng(seed), 128)
        noise = crop.prior - crop.signal
        agreement.append(np.corrcoef(noise.ravel(), crop.signal.ravel())[0, 1])
        assert noise.std() > 0.3
    assert abs(np.mean(agreement)) < 0.1


def test_white_noise_and_no_ice_are_settings(simulated, real_set):
    plans = [plan_training(build_config(TrainConfig, {
        'dataset': str(simulated), 'micrographs': [real_set.micrographs], 'output': 'unused', **more}))
        for more in ({'input_noise': 'gaussian'}, {'ice': False}, {})]
    white, bare, usual = (one.simulated(np.random.default_rng(0), 128) for one in plans)

    spectrum = np.abs(np.fft.fft2(white.prior - white.signal)) ** 2
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128)))
    bands = [spectrum[(radius > low) & (radius < low + 0.1)].mean() for low in (0.1, 0.2, 0.3, 0.4)]
    assert max(bands) < 1.15 * min(bands)
    assert not np.allclose(bare.signal, usual.signal)
    assert np.allclose(bare.prior - bare.signal, usual.prior - usual.signal, atol=1e-5)
    difference = usual.signal - bare.signal                            # smooth, as ice is
    assert np.abs(np.diff(difference, axis=0)).max() < 0.1 * np.ptp(difference) + 1e-6


def test_whole_micrographs_are_held_out_of_many_and_strips_of_few():
    files = [Path(f'mic_{i:02d}.mrc') for i in range(13)]
    many, few = split_micrographs(files, 0.25), split_micrographs(files[:3], 0.25)

    assert len(many.held_out) == 3
    assert sorted([*many.train, *many.held_out]) == files
    assert many.train_part == many.held_out_part == (0.0, 1.0)
    assert few.train == few.held_out == files[:3]
    assert (few.train_part, few.held_out_part) == ((0.0, 0.75), (0.75, 1.0))
    assert split_micrographs(files, 0.0) is None


def test_nothing_of_a_micrograph_that_is_held_out_whole_is_simulated(plan):
    dataset, calibration = plan.dataset, plan.dataset.calibration
    first, *others = calibration.micrographs
    protocol, left = build_protocol(dataset.config, calibration, 120.0), leave_out(dataset, {first.name})
    sources = {draw_record(protocol, left.calibration, dataset.load_ensemble(), index).source for index in range(12)}

    assert others
    assert 0 not in sources
    assert leave_out(dataset, {'another'}).calibration.micrographs == calibration.micrographs
    assert leave_out(dataset, {one.name for one in calibration.micrographs}) is dataset


def test_a_held_out_strip_is_not_learned_from(plan):
    assert plan.split.held_out_part == (0.5, 1.0)
    held_out = RealCrops(plan.split.held_out, None, plan.dataset.calibration, plan.split.held_out_part)
    assert plan.real.shape == held_out.shape == (256, 144)
    whole = RealCrops(plan.split.held_out, None, plan.dataset.calibration).draw(np.random.default_rng(0), 256)
    assert whole.shape == (256, 256)


def test_fresh_noise_is_drawn_for_every_crop(simulated):
    crops = SimulatedCrops(read_dataset(simulated), 256)
    first, second = (crops.draw(np.random.default_rng(seed), 256).prior for seed in (0, 1))

    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.2


def test_real_crops_are_cuts_of_the_real_micrographs_in_contrast_units(simulated, real_set):
    files = sorted((real_set.folder / 'micrographs').iterdir())
    crops = RealCrops(files, None, read_dataset(simulated).calibration)
    drawn = np.stack([crops.draw(np.random.default_rng(seed), 64) for seed in range(30)])

    assert (drawn.shape, drawn.dtype) == ((30, 64, 64), np.float32)
    assert abs(drawn.mean()) < 0.2
    assert drawn.std() == pytest.approx(1, abs=0.15)
    wholes = [(image - image.mean()) / image.std() for image in map(mrcfile.read, files)]
    for crop in drawn[:3]:
        best = max(np.fft.ifft2(np.fft.fft2(whole) * np.fft.fft2(crop, s=whole.shape).conj()).real.max()
                   for whole in wholes)
        assert best > 0.9 * (crop ** 2).sum()


def test_real_micrographs_of_another_pixel_size_are_brought_to_that_of_the_dataset(simulated, tmp_path):
    y, x = np.mgrid[:240, :240]
    wave = np.cos(2 * np.pi * x / 20) + 0.01 * np.random.default_rng(0).standard_normal((240, 240))
    with mrcfile.new(tmp_path / 'fine.mrc') as file:
        file.set_data(wave.astype(np.float32))
        file.voxel_size = 2.5
    crops = RealCrops([tmp_path / 'fine.mrc'], None, read_dataset(simulated).calibration)
    crop = crops.draw(np.random.default_rng(0), 64)

    power = np.abs(np.fft.rfft(crop[:, :60], axis=1)).mean(axis=0)      # 20 px of 2.5 Å are 10 px of 5 Å
    assert power.argmax() == 6


@pytest.fixture(scope='module')
def judged(real_set, simulated, tmp_path_factory):
    """A finished training of four steps, judged on half of each micrograph."""
    folder = tmp_path_factory.mktemp('judged') / 'model'
    assert main(['train', '--dataset', str(simulated), '--micrographs', real_set.micrographs, '--max-steps', '4',
                 '--crop-size', '48', '--batch-size', '2', '--checkpoint-every', '2', '--held-out', '0.5',
                 '--output', str(folder)]) == 0
    return folder


def test_the_card_says_realism_and_signal_of_the_model_beside_those_of_its_prior(judged):
    description = json.loads((judged / 'card.json').read_text())['description']
    realism, signal = description['gates']['realism'], description['gates']['signal']

    assert realism['passed'] == (realism['model'] < realism['prior'])
    assert realism['ratio_prior'] == pytest.approx(realism['prior'] / realism['floor'])
    assert len(signal['correlation_model']) == len(signal['correlation_prior']) == 8
    assert 0.2 < signal['correlation_prior'][0] <= 1
    assert len(signal['by_shell_model']) == len(signal['by_shell_prior']) == N_SHELLS
    assert signal['passed'] == (signal['largest_loss'] <= 0.02)
    assert description['data']['held_out'] == ['mic_1.mrc', 'mic_2.mrc', 'mic_3.mrc']
    assert description['realism']['prior'] > 0


def test_the_card_says_how_often_a_picker_sees_particles_where_none_is(judged):
    picks = json.loads((judged / 'card.json').read_text())['description']['gates']['hallucinations']

    assert picks['picker'] in ('RELION LoG', 'the mean particle (RELION is not installed)')
    assert picks['passed'] == (picks['model']['share'] <= picks['prior']['high'])
    assert picks['prior']['low'] <= picks['prior']['share'] <= picks['prior']['high']
    assert picks['model']['n_picks'] > 50


@pytest.mark.parametrize('has_relion', [True, False])
def test_a_model_that_paints_particles_of_its_own_fails_the_gate_with_any_picker(plan, monkeypatch, has_relion):
    if has_relion and not has_blob_picker():
        pytest.skip('RELION is not installed')
    monkeypatch.setattr('cryogem.evaluation.pickers.has_blob_picker', lambda: has_relion)
    radius = plan.dataset.calibration.particle_diameter / plan.dataset.calibration.pixel_size / 2

    def paint(inputs):
        y, x = torch.meshgrid(*(torch.arange(side) for side in inputs.shape[-2:]), indexing='ij')
        discs = ((y - 60) % 120 - 60) ** 2 + ((x - 60) % 120 - 60) ** 2 < radius ** 2
        return inputs[:, :1] - 3.0 * discs

    honest = judge_hallucinations(plan, lambda inputs: 0.9 * inputs[:, :1], 3)
    painted = judge_hallucinations(plan, paint, 3)

    assert honest['passed'] is True
    assert honest['model']['share'] == pytest.approx(honest['prior']['share'], abs=0.02)
    assert painted['passed'] is False
    assert painted['model']['share'] > painted['prior']['share'] + 0.2
    assert painted['picker'].startswith('RELION' if has_relion else 'the mean particle')
    assert list_failures({'signal': {'passed': True}, 'hallucinations': painted})[0].startswith(
        'the model shows particles where none is')


def test_a_picker_that_fails_leaves_the_gate_open_and_the_card_says_why(plan, monkeypatch):
    def fail(*arguments):
        raise ProgramError('relion_autopick ended with 1')

    monkeypatch.setattr('cryogem.commands.hallucination.pick_untrained', fail)
    found = judge_hallucinations(plan, keep_prior, 0)

    assert found['passed'] is None
    assert found['note'] == 'not measured: relion_autopick ended with 1'


def test_metrics_hold_the_realism_where_it_was_judged(judged):
    rows = read_steps(judged)

    assert [bool(row['realism_model']) for row in rows] == [False, True, False, True]
    assert len({row['realism_prior'] for row in rows if row['realism_prior']}) == 1


@pytest.mark.parametrize(('passed', 'flags', 'is_prior'), [(False, (), True), (False, ('--force',), False),
                                                           (True, (), False)])
def test_generate_takes_the_prior_in_place_of_a_model_that_is_no_better(
    passed, flags, is_prior, judged, simulated, tmp_path, caplog
):
    folder = shutil.copytree(judged, tmp_path / 'model')
    card = json.loads((folder / 'card.json').read_text())
    card['description']['gates']['realism']['passed'] = passed
    (folder / 'card.json').write_text(json.dumps(card))
    outputs = []
    for model, more in ((str(folder), flags), ('measured', ())):
        outputs.append(tmp_path / f'out_{len(outputs)}')
        assert main(['generate', '--model', model, '--dataset', str(simulated), '--n-micrographs', '1', '--seed', '3',
                     '--output', str(outputs[-1]), *more]) == 0
    first, second = (mrcfile.read(out / 'micrographs' / 'generated_00001.mrc') for out in outputs)

    assert np.array_equal(first, second) == is_prior
    assert ('is not better than the prior it starts from' in caplog.text) == (not passed)


@pytest.mark.parametrize('flags', [
    ('--preset', 'paper', '--crop-size', '32', '--batch-size', '1'),
    ('--preset', 'paper', '--crop-size', '32', '--batch-size', '1', '--sampling', 'uniform', '--no-ice'),
    ('--contrastive-weight', '0.1', '--adversarial-weight', '0.1', '--sampling', 'uniform'),
    ('--contrastive-weight', '0.1', '--adversarial-weight', '1', '--discriminator-crop', '32'),
    ('--input-noise', 'gaussian', '--no-ice', '--simulation', 'dataset')])
def test_presets_and_ablations_train_and_generate_by_config_alone(flags, real_set, simulated, tmp_path):
    model, out = tmp_path / 'model', tmp_path / 'out'
    assert main(['train', '--dataset', str(simulated), '--micrographs', real_set.micrographs, '--max-steps', '2',
                 '--crop-size', '48', '--batch-size', '2', '--held-out', '0', '--output', str(model), *flags]) == 0
    rows = read_steps(model)
    assert len(rows) == 2
    if 'uniform' in flags or '--contrastive-weight' in flags:       # a crop of 32 px may hold one region only
        assert max(float(row['contrastive_loss']) for row in rows) > 0
    if 'paper' in flags or '--adversarial-weight' in flags:
        assert max(float(row['d_loss']) for row in rows) > 0
    assert main(['generate', '--model', str(model), '--dataset', str(simulated), '--n-micrographs', '1',
                 '--output', str(out)]) == 0
    image = mrcfile.read(out / 'micrographs' / 'generated_00001.mrc')
    assert image.shape == (256, 288)
    assert np.isfinite(image).all()
    assert image.std() > 1


def test_tensorboard_that_is_not_installed_is_told_of(arguments, tmp_path, fail):
    try:
        import tensorboard  # noqa: F401
        pytest.skip('tensorboard is installed')
    except ImportError:
        message = fail([*arguments, '--tensorboard'])
    assert message.startswith('tensorboard cannot be True because its package is not installed; install it')


def test_tensorboard_is_told_every_figure_of_every_step(arguments, tmp_path, monkeypatch):
    """The package is an extra: what it is asked to write is looked at in its place."""
    written = []

    class Writer:
        def __init__(self, folder):
            self.folder = Path(folder).name

        def add_scalar(self, name, value, step):
            written.append((self.folder, name, value, step))

        def flush(self):
            pass

    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', types.SimpleNamespace(SummaryWriter=Writer))
    assert main([*arguments, '--held-out', '0.5', '--tensorboard']) == 0

    assert {folder for folder, *_ in written} == {'events'}
    for row in read_steps(tmp_path / 'model'):
        told = {name: value for _, name, value, step in written if step == int(row['step'])}
        figures = {name: float(value) for name, value in row.items() if name != 'step' and value}
        assert 'realism_prior' in told
        assert told == pytest.approx(figures, rel=1e-5)


def test_a_report_tells_gates_and_guard_of_a_model(judged):
    about = json.loads((judged / 'card.json').read_text())['description']
    about['bias_guard'] = {'halves': {'disagreement': 0.25}, 'particles_on_empty_crops': {
        'prior': 0.1, 'model': 0.2, 'decoy': 0.3, 'placed_on_full_crops': 4.0}}
    text = '. '.join(describe_card(about))

    assert f'of its prior {about["gates"]["realism"]["prior"]:.3g}' in text
    assert 'away from every particle, on its prior' in text
    assert 'differ by 0.25 times' in text
    assert '0.30 from a decoy that was trained without particles' in text


def test_a_report_says_where_the_prior_was_taken_in_place_of_a_model(judged, tmp_path):
    card = json.loads((judged / 'card.json').read_text())
    for is_passed, is_forced, said in ((True, False, 'model'), (False, True, 'model'), (False, False, 'the prior of')):
        card['description']['gates']['realism']['passed'] = is_passed
        (tmp_path / 'card.json').write_text(json.dumps(card))
        config = GenerateConfig(output='made', dataset='simulated', model=str(tmp_path), force=is_forced)
        assert name_maker(config).startswith(f'{said} ')
    assert name_maker(GenerateConfig(output='made', dataset='simulated')) == 'model measured'


@pytest.mark.slow
def test_the_bias_guard_compares_two_halves_and_a_decoy_without_particles(real_set, simulated, tmp_path):
    model = tmp_path / 'model'
    assert main(['train', '--dataset', str(simulated), '--micrographs', real_set.micrographs, '--max-steps', '4',
                 '--crop-size', '48', '--batch-size', '2', '--checkpoint-every', '4', '--held-out', '0.5',
                 '--bias-guard', '--output', str(model)]) == 0
    shown = json.loads((model / 'card.json').read_text())['description']['bias_guard']

    assert len(shown['halves']['distances']) == 2
    assert shown['halves']['disagreement'] > 0
    counts = shown['particles_on_empty_crops']
    assert counts['prior'] <= 0.5                       # noise alone reaches four sd somewhere on a few crops
    assert counts['placed_on_full_crops'] > 2 * counts['prior']
    assert set(counts) == {'prior', 'model', 'decoy', 'placed_on_full_crops'}
    assert sorted(one.name for one in (model / 'guard').iterdir()) == ['decoy', 'half_1', 'half_2']
