"""Similarity maps and their number: right where features are known."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from cryogem.evaluation.features import TopazNetwork
from cryogem.evaluation.frames import Frame
from cryogem.evaluation.plots import draw_similarity
from cryogem.evaluation.similarity import (
    choose_queries,
    compute_auc,
    draw_maps,
    make_encoder,
    make_topaz_encoder,
)
from cryogem.translation.generator import ResidualGenerator

CENTERS = np.array([[40.0, 40.0], [40.0, 120.0], [110.0, 80.0]])


@pytest.fixture
def frame():
    y, x = np.mgrid[:150, :160]
    contrast = np.zeros((150, 160), np.float32)
    for cy, cx in CENTERS:
        contrast[np.hypot(y - cy, x - cx) < 10] = -1
    return Frame('m', contrast, CENTERS)


def grey_encoder(image):
    """Features that know the grey value alone."""
    return torch.cat([image, 1 + image], dim=1)


def test_a_map_of_perfect_features_separates_particles_from_background(frame):
    maps = draw_maps('grey', grey_encoder, frame, 20.0, {'particle': (40.0, 40.0), 'background': (75.0, 20.0)}, 2.0)

    assert [one.query for one in maps] == ['particle', 'background']
    for one in maps:
        assert one.similarity.shape == frame.contrast.shape
        assert one.auc > 0.97
    assert maps[0].similarity[40, 120] == pytest.approx(1, abs=1e-3)
    assert maps[0].similarity[75, 20] == pytest.approx(-1, abs=1e-3)


def test_features_without_meaning_are_at_chance(frame):
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 8, 150, 160)).astype(np.float32))
    one, = draw_maps('noise', lambda image: noise, frame, 20.0, {'particle': (40.0, 40.0)}, 1.0)

    assert one.auc == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(('score', 'auc'), [
    ([1, 2, 3, 4], 1), ([4, 3, 2, 1], 0), ([1, 1, 1, 1], 0.5), ([1, 3, 2, 4], 0.75)])
def test_the_area_is_the_share_of_pairs_in_the_right_order(score, auc):
    assert compute_auc(np.array(score), np.array([False, False, True, True])) == auc


def test_an_area_needs_both_kinds():
    assert compute_auc(np.zeros(3), np.ones(3, dtype=bool)) is None


def test_queries_are_a_particle_off_the_border_and_the_emptiest_place(frame):
    queries = choose_queries(frame, 20.0, np.random.default_rng(0))

    assert queries['particle'] in [tuple(one) for one in CENTERS]
    y, x = queries['background']
    assert np.hypot(*(CENTERS - (y, x)).T).min() > 40
    assert 0 <= y < 150
    assert 0 <= x < 160


def test_places_are_compared_by_what_lies_around_them(frame):
    features = torch.randn((1, 4, 75, 80), generator=torch.Generator().manual_seed(0))          # cells of 2 px
    found, = draw_maps('random', lambda _: features, frame, 20.0, {'particle': (60.5, 80.5)}, 6.0)
    centered = (features - features.mean(dim=(2, 3), keepdim=True))[0].numpy()
    means = [centered[:, y - 3:y + 4, x - 3:x + 4].mean(axis=(1, 2)) for y, x in ((30, 40), (50, 20))]
    expected = means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1])

    # between four cells, a quarter of the way into the next
    np.testing.assert_allclose(found.similarity[60:62, 80:82], 1, atol=0.2)
    nearest = found.similarity[100:102, 40:42].mean()
    assert abs(nearest - expected) < 0.2


def test_the_particle_that_is_asked_for_is_not_one_on_dark_ice():
    centers = np.array([(y, x) for y in (40, 80, 120, 160) for x in (40, 80, 120, 160)], dtype=float)
    contrast = np.random.default_rng(1).standard_normal((200, 200)).astype(np.float32)
    contrast[:, :60] -= 3
    frame = Frame('m', contrast, centers)
    chosen = {choose_queries(frame, 20.0, np.random.default_rng(seed))['particle'] for seed in range(12)}

    assert len(chosen) > 2
    assert all(x > 40 for _, x in chosen)


@pytest.mark.parametrize('build', [lambda: make_encoder(ResidualGenerator()),
                                   lambda: make_topaz_encoder(TopazNetwork())], ids=['generator', 'topaz'])
def test_maps_of_networks_lie_over_their_micrograph(build, frame, tmp_path):
    maps = draw_maps('network', build(), frame, 20.0, {'particle': (40.0, 40.0)}, 3.0)

    assert maps[0].similarity.shape == (150, 160)
    assert maps[0].similarity[40, 40] > 0.8 * maps[0].similarity.max()
    draw_similarity(tmp_path / 'similarity.png', frame, maps)
    assert (tmp_path / 'similarity.png').stat().st_size > 1000


def test_strips_of_a_frame_give_the_features_of_the_whole(frame):
    network = nn.Conv2d(1, 3, 71)                               # takes off 35 px on each side, as the detector does
    image = torch.from_numpy(np.tile(frame.contrast, (2, 1)))[None, None]
    whole = functional.avg_pool2d(network(functional.pad(image, (35,) * 4, mode='reflect')), 4, ceil_mode=True)
    found = make_topaz_encoder(network)(image)

    assert found.shape == (1, 3, 75, 40)
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)


def test_a_map_of_coarse_features_lies_where_those_of_fine_ones_lie(frame):
    def coarse_encoder(image):
        return functional.avg_pool2d(grey_encoder(image), 4, ceil_mode=True)

    fine, coarse = (draw_maps('grey', encoder, frame, 20.0, {'particle': (40.0, 40.0)}, 2.0)[0]
                    for encoder in (grey_encoder, coarse_encoder))

    assert coarse.similarity.shape == frame.contrast.shape
    assert np.mean((coarse.similarity > 0) == (fine.similarity > 0)) > 0.98
    assert coarse.auc > 0.97
