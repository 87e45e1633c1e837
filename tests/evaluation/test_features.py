"""Topaz's features without Topaz, and the distances on them."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from cryogem.errors import InputError
from cryogem.evaluation.features import (
    LEAST_CROP,
    compute_frechet_distance,
    compute_kernel_distance,
    draw_crops,
    extract_features,
    find_topaz_weights,
    load_topaz_network,
    measure_null,
)
from tests.topaz import find_topaz

ASK_TOPAZ = """
import json, sys, numpy as np, torch
from topaz.model.factory import load_model
image = torch.from_numpy(np.load(sys.argv[1]))
print(json.dumps(load_model('resnet8_u32').eval().features(image).detach().numpy().tolist()))
"""


@pytest.fixture(scope='module')
def network():
    return load_topaz_network(find_topaz_weights(find_topaz()))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_the_features_are_those_that_topaz_itself_computes(network, rng, tmp_path):
    image = rng.standard_normal((1, 1, 96, 120)).astype(np.float32)
    np.save(tmp_path / 'image.npy', image)
    python = Path(find_topaz()) / 'bin' / 'python'
    done = subprocess.run([python, '-c', ASK_TOPAZ, str(tmp_path / 'image.npy')], capture_output=True, text=True,
                          timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    expected = np.array(json.loads(done.stdout.splitlines()[-1]))

    assert expected.shape == (1, 128, 7, 13)
    assert expected.std() > 0.01
    np.testing.assert_allclose(network(torch.from_numpy(image)).numpy(), expected, atol=1e-5)


def test_topaz_is_not_imported(network):
    assert 'topaz' not in sys.modules


def test_cells_of_one_crop_follow_each_other_and_cover_it(network, rng):
    crops = rng.standard_normal((3, 128, 128)).astype(np.float32)
    features = extract_features(network, crops)

    assert features.shape == (48, 128)
    np.testing.assert_allclose(features[16:32], extract_features(network, crops[1:2]), atol=1e-6)
    changed = crops[:1].copy()
    changed[0, 118:, 118:] = 5                   # the lower right corner belongs to the last cell alone
    is_changed = np.abs(extract_features(network, changed) - features[:16]).max(axis=1) > 1e-6
    assert list(np.flatnonzero(is_changed)) == [15]


def test_crops_too_small_for_the_grid_are_refused(network):
    assert extract_features(network, np.zeros((1, LEAST_CROP, LEAST_CROP))).shape == (16, 128)
    with pytest.raises(InputError, match='crops of 83 x 83 px are too small for the network; use at least 84 px'):
        extract_features(network, np.zeros((1, 83, 83)))


class Intruder:
    """Runs a command when it is unpickled by a careless loader."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_file_of_weights_is_not_run(tmp_path):
    torch.save({'features.features.0.conv.weight': Intruder(tmp_path / 'was_here')}, tmp_path / 'evil.sav')
    pickle.loads(pickle.dumps(Intruder(tmp_path / 'proof')))
    assert (tmp_path / 'proof').exists()                          # a careless loader would have run it

    with pytest.raises(InputError, match='are not the tensors of the detector resnet8_u32'):
        load_topaz_network(tmp_path / 'evil.sav')
    assert not (tmp_path / 'was_here').exists()


@pytest.mark.parametrize('content', [b'', b'not weights at all', pickle.dumps([1, 2], protocol=2)])
def test_what_holds_no_weights_is_refused(content, tmp_path):
    path = tmp_path / 'resnet8_u32.sav'
    path.write_bytes(content)

    with pytest.raises(InputError, match='give resnet8_u32.sav of topaz-em'):
        load_topaz_network(path)


def test_tensors_of_another_network_are_refused(tmp_path):
    torch.save({'features.features.0.conv.weight': torch.zeros(64, 1, 7, 7)}, tmp_path / 'other.sav')

    with pytest.raises(InputError, match='are not the tensors of the detector resnet8_u32'):
        load_topaz_network(tmp_path / 'other.sav')


def test_weights_are_found_by_file_package_environment_and_installation_folder(tmp_path):
    expected = tmp_path / 'lib' / 'python3.9' / 'site-packages' / 'topaz' / 'pretrained/detector/resnet8_u32.sav'
    expected.parent.mkdir(parents=True)
    expected.touch()
    folders = (expected, expected.parents[2], expected.parents[3], tmp_path)

    assert [find_topaz_weights(str(one)) for one in folders] == [expected] * 4


def test_weights_that_were_given_and_are_not_there_are_an_error(tmp_path):
    with pytest.raises(InputError, match='holds no resnet8_u32.sav; give that file, or the folder'):
        find_topaz_weights(str(tmp_path))


def test_weights_of_an_installed_package_are_found_and_absent_ones_are_none(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    monkeypatch.setenv('PATH', str(tmp_path / 'bin'))
    assert find_topaz_weights() is None
    path = tmp_path / 'topaz' / 'pretrained' / 'detector' / 'resnet8_u32.sav'
    path.parent.mkdir(parents=True)
    path.touch()
    (tmp_path / 'topaz' / '__init__.py').write_text('raise RuntimeError("imported")')
    assert find_topaz_weights() == path


def test_weights_of_the_environment_of_the_program_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'path', [])
    monkeypatch.setenv('PATH', str(tmp_path / 'bin'))
    path = tmp_path / 'lib' / 'python3.10' / 'site-packages' / 'topaz' / 'pretrained' / 'detector' / 'resnet8_u32.sav'
    for one in (path, tmp_path / 'bin' / 'topaz'):
        one.parent.mkdir(parents=True)
        one.touch(0o755)
    assert find_topaz_weights() == path


def test_crops_lie_inside_the_frame_and_have_zero_mean_and_unit_sd(rng):
    image = np.arange(200 * 300, dtype=np.float32).reshape(200, 300)
    crops = draw_crops(image, 5, 64, rng)

    assert crops.shape == (5, 64, 64)
    assert np.abs(crops.mean(axis=(1, 2))).max() < 1e-4
    np.testing.assert_allclose(crops.std(axis=(1, 2)), 1, rtol=1e-4)
    # px of a row follow each other in the ramp, rows are 300 apart: an unbroken piece of the frame
    steps = (crops[:, 1, 0] - crops[:, 0, 0]) / (crops[:, 0, 1] - crops[:, 0, 0])
    np.testing.assert_allclose(steps, 300, rtol=1e-2)
    assert len({crop.tobytes() for crop in draw_crops(rng.standard_normal((200, 300)), 5, 64, rng)}) == 5


def test_a_frame_smaller_than_a_crop_is_refused(rng):
    with pytest.raises(InputError, match='micrographs are 50 x 90 px, less than crops of 64; use larger ones'):
        draw_crops(np.zeros((90, 50)), 1, 64, rng)


def test_gaussians_of_known_distance(rng):
    # with unit covariances only the means differ: |difference|² / d
    d = 8
    shift = np.array([0.5, *np.zeros(d - 1)])
    real = rng.standard_normal((200000, d))

    assert compute_frechet_distance(real, rng.standard_normal((200000, d)) + shift) == pytest.approx(
        0.25 / d, abs=1e-3)
    # twice the sd in each dimension: 1 + 4 - 2·2 = 1
    assert compute_frechet_distance(real, 2 * real) == pytest.approx(1, abs=0.02)


def test_the_root_of_the_covariances_is_that_of_scipy(rng):
    real = rng.standard_normal((500, 6)) @ rng.standard_normal((6, 6))
    made = rng.standard_normal((500, 6)) @ rng.standard_normal((6, 6)) + 0.3
    sd, mean = real.std(axis=0), real.mean(axis=0)
    a, b = ((one - mean) / sd for one in (real, made))
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(
        np.cov(a.T) + np.cov(b.T) - 2 * sqrtm(np.cov(a.T) @ np.cov(b.T)).real)

    assert compute_frechet_distance(real, made) == pytest.approx(expected / 6, rel=1e-6)


def test_fewer_samples_than_dimensions_give_the_distance_of_their_covariances(rng):
    real, made = rng.standard_normal((5, 12)), rng.standard_normal((7, 12)) + 0.2
    sd = np.maximum(real.std(axis=0), 0.25 * np.median(real.std(axis=0)))
    a, b = (real - real.mean(0)) / sd, (made - real.mean(0)) / sd
    root = np.sqrt(np.maximum(np.linalg.eigvals(np.cov(a.T) @ np.cov(b.T)).real, 0)).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T)) - 2 * root

    assert compute_frechet_distance(real, made) == pytest.approx(expected / 12, rel=1e-5)


def test_equal_sets_have_no_distance(rng):
    features = rng.standard_normal((100, 5))

    assert compute_frechet_distance(features, features) == pytest.approx(0, abs=1e-9)
    assert compute_kernel_distance(features, features) < 0.1


def test_a_channel_that_hardly_ever_answers_does_not_explode(rng):
    real, made = rng.standard_normal((2, 500, 8))
    expected = compute_frechet_distance(real, made)
    real[:, 0], made[:, 0] = 0, 0
    made[3, 0] = 0.2                                            # of 0.25 sd that such a channel is scaled by

    assert compute_frechet_distance(real, made) < 1.5 * expected


def test_the_kernel_distance_is_without_bias(rng):
    values = [compute_kernel_distance(*rng.standard_normal((2, 60, 6))) for _ in range(60)]

    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(60)
    assert compute_kernel_distance(rng.standard_normal((60, 6)), rng.standard_normal((60, 6)) + 1) > 5 * np.std(values)


def test_the_null_comes_from_halves_of_micrographs_and_not_of_crops(rng):
    # crops of one micrograph are alike: halves by crop would share micrographs and look nearer than they are
    real = [rng.standard_normal(4) + 0.3 * rng.standard_normal((50, 4)) for _ in range(8)]
    null = measure_null(real, rng)
    pooled = np.concatenate(real)[rng.permutation(400)]

    assert null.shape == (12,)
    assert null.min() > 3 * compute_frechet_distance(pooled[:200], pooled[200:])


def test_a_set_of_the_same_kind_lies_within_the_null(rng):
    sets = [[rng.standard_normal(4) + rng.standard_normal((50, 4)) for _ in range(16)] for _ in range(2)]
    null = measure_null(sets[0], rng)
    distance = compute_frechet_distance(np.concatenate(sets[0][:8]), np.concatenate(sets[1][:8]))

    assert null.min() / 3 < distance < 3 * null.max()


def test_the_null_needs_two_micrographs(rng):
    with pytest.raises(InputError, match='real holds 1 micrograph and its floor needs two halves; give at least 2'):
        measure_null([np.zeros((5, 4))], rng)
