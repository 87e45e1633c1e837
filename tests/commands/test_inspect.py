"""What inspect says of a map and of picks."""

import json

import numpy as np
import pytest
from PIL import Image

from cryogem.__main__ import main


def read_inspection(folder):
    return json.loads((folder / 'inspection.json').read_text())


@pytest.fixture(scope='module')
def inspected(real_set, tmp_path_factory):
    folder = tmp_path_factory.mktemp('inspect') / 'both'
    assert main(['inspect', '--volume', real_set.map, '--micrographs', real_set.micrographs, '--coordinates',
                 real_set.coordinates, '--output', str(folder)]) == 0
    return folder


def test_the_diameter_is_that_of_the_particle(real_set, inspected):
    found = read_inspection(inspected)['map']

    centers = real_set.phantom.positions
    extent = 2 * np.linalg.norm(centers - centers.mean(axis=0), axis=1).max()
    assert extent - 10 < found['diameter'] < extent + 50        # the Gaussians and the coarse outline reach farther
    assert found['least_density'] < found['mask_threshold'] < found['largest_density']


def test_picks_are_counted_as_they_were_made(real_set, inspected):
    found = read_inspection(inspected)['micrographs']

    numbers = [len(centers) for centers in real_set.centers_yx.values()]
    assert found['n_picks'] == sum(numbers)
    assert found['particles_per_micrograph'][0] == pytest.approx(np.mean(numbers), rel=0.5)
    assert found['minimum_distance'] >= 30 * 5.0 - 1e-6         # px between the picks of the experiment, times Å/px
    assert found['working_pixel_size'] == 5.0


def test_a_higher_threshold_makes_a_smaller_particle(real_set, inspected, tmp_path):
    found = read_inspection(inspected)['map']
    higher = (found['mask_threshold'] + found['largest_density']) / 2
    assert main(['inspect', '--volume', real_set.map, '--mask-threshold', str(higher), '--output',
                 str(tmp_path / 'out')]) == 0

    again = read_inspection(tmp_path / 'out')['map']
    assert again['diameter'] < found['diameter']
    assert not (tmp_path / 'out' / 'picks.png').exists()


def test_the_picture_shows_projection_outline_and_diameter(inspected):
    with Image.open(inspected / 'map.png') as picture:
        pixels = np.asarray(picture)
    colours = {tuple(colour) for colour in pixels.reshape(-1, 3)}

    assert {(255, 120, 0), (0, 170, 255)} <= colours
    assert len(colours) > 50


def test_picks_alone_give_the_diameter_from_touching_neighbours(real_set, tmp_path):
    assert main(['inspect', '--micrographs', real_set.micrographs, '--coordinates', real_set.coordinates,
                 '--output', str(tmp_path / 'out')]) == 0

    found = read_inspection(tmp_path / 'out')
    assert 'map' not in found
    assert found['micrographs']['diameter'] >= 30 * 5.0 - 1e-6


def test_nothing_to_look_at_is_refused(tmp_path, capsys):
    assert main(['inspect', '--output', str(tmp_path / 'out')]) == 2

    assert 'volume is missing; give a map, micrographs, or both' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_threshold_above_everything_leaves_nothing_behind(real_set, tmp_path, capsys):
    assert main(['inspect', '--volume', real_set.map, '--mask-threshold', '1e9', '--output',
                 str(tmp_path / 'out')]) == 2

    assert 'mask_threshold leaves no voxel' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
