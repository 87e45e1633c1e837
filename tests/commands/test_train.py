"""`cryogem train`: the model folder, crops of both kinds, going on, and what is refused."""

import csv
import json
import shutil

import mrcfile
import numpy as np
import pytest
import torch

from cryogem.__main__ import main
from cryogem.commands.train import RealCrops, SimulatedCrops
from cryogem.dataset.reader import read_dataset
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
        'samples/step_000002.png', 'weights.pt']
    assert [row['step'] for row in read_steps(model)] == ['1', '2']


def test_the_card_says_where_the_model_comes_from(model, simulated):
    description = json.loads((model / 'card.json').read_text())['description']
    config = json.loads((model / 'config.json').read_text())

    assert (description['steps'], description['preset'], description['pixel_size']) == (2, 'fast', 5.0)
    assert (description['n_real_micrographs'], description['n_simulated_micrographs']) == (3, 3)
    assert (config['command'], config['crop_size'], config['dataset']) == ('train', 48, str(simulated))
    assert (model / 'calibration.json').read_bytes() == (simulated / 'calibration.json').read_bytes()


def test_the_trained_module_is_loaded_in_eval_mode_and_keeps_the_shape(model):
    generator = load_generator(model)
    image = torch.randn(2, 1, 40, 56)

    assert not generator.training
    with torch.no_grad():
        output = generator(image)
    assert (output.shape, output.dtype) == (image.shape, torch.float32)
    assert 0 < (output - image).abs().mean() < 1


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
    assert (tmp_path / 'model' / 'weights.pt').read_bytes() == (model / 'weights.pt').read_bytes()


@pytest.mark.parametrize(('flag', 'value'), [('learning_rate', '0.5'), ('crop_size', '64'), ('batch_size', '3')])
def test_a_training_is_not_continued_with_another_setting(model, arguments, tmp_path, fail, flag, value):
    shutil.copytree(model, tmp_path / 'model')
    message = fail([*arguments, '--continue', '--' + flag.replace('_', '-'), value])

    assert message.startswith(f'{flag} is {value} but the run in ')
    assert 'use the same value' in message


def test_the_paper_preset_says_that_it_is_not_there_yet(arguments, tmp_path, fail):
    message = fail([*arguments, '--preset', 'paper'])

    assert message.startswith("preset cannot be 'paper'; training of the published network is not built yet")
    assert 'use fast' in message
    assert not (tmp_path / 'model').exists()


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
        image, mask = crops.draw(np.random.default_rng(seed), 128)
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


def test_fresh_noise_is_drawn_for_every_crop(simulated):
    crops = SimulatedCrops(read_dataset(simulated), 256)
    first, second = (crops.draw(np.random.default_rng(seed), 256)[0] for seed in (0, 1))

    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.2


def test_real_crops_are_cuts_of_the_real_micrographs_in_contrast_units(simulated, real_set):
    files = sorted((real_set.folder / 'micrographs').iterdir())
    crops = RealCrops(files, None, read_dataset(simulated).calibration, 64)
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
    crops = RealCrops([tmp_path / 'fine.mrc'], None, read_dataset(simulated).calibration, 64)
    crop = crops.draw(np.random.default_rng(0), 64)

    power = np.abs(np.fft.rfft(crop[:, :60], axis=1)).mean(axis=0)      # 20 px of 2.5 Å are 10 px of 5 Å
    assert power.argmax() == 6
