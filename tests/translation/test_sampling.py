import pytest
import torch

from cryogem.translation.sampling import draw_positions, draw_region_positions, gather_features, reduce_mask


def make_random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_positions_lie_in_their_region_and_are_all_different():
    mask = torch.rand(3, 1, 20, 30, generator=make_random()) > 0.5
    positions = draw_region_positions(mask, 40, make_random())
    for region, where in ((mask, positions.particle), (~mask, positions.background)):
        assert where.is_drawn.all()
        assert region.flatten(1).gather(1, where.index).all()
        assert all(len(set(row.tolist())) == 40 for row in where.index)


def test_a_region_smaller_than_asked_gives_all_it_has_and_an_empty_one_nothing():
    mask = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    mask[0, 0, 2, 3:6] = True
    drawn = draw_positions(mask, 10, make_random())
    assert sorted(drawn.index[0][drawn.is_drawn[0]].tolist()) == [19, 20, 21]
    assert not drawn.is_drawn[1].any()


def test_more_positions_than_pixels_give_every_pixel():
    drawn = draw_positions(torch.ones(1, 1, 3, 4, dtype=torch.bool), 256, make_random())
    assert sorted(drawn.index[0].tolist()) == list(range(12))


def test_every_position_of_a_region_is_equally_likely():
    mask = torch.zeros(4000, 1, 4, 4, dtype=torch.bool)
    mask[:, 0, 1:3, 1:3] = True
    drawn = draw_positions(mask, 2, make_random())
    counts = torch.bincount(drawn.index[drawn.is_drawn], minlength=16)
    assert counts.sum() == 8000
    assert counts[[5, 6, 9, 10]].tolist() == pytest.approx([2000] * 4, abs=150)


def test_positions_follow_from_the_seed_alone():
    mask = torch.ones(2, 1, 9, 9, dtype=torch.bool)
    first, again, other = (draw_positions(mask, 5, make_random(seed)).index for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_drawing_leaves_the_global_random_state_alone():
    before = torch.random.get_rng_state()
    draw_positions(torch.ones(1, 1, 9, 9, dtype=torch.bool), 5, make_random())
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_reduced_mask_is_true_where_more_than_half_is_particle():
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask[0, 0, :2, :2] = True
    mask[0, 0, 2:, 2] = True
    assert reduce_mask(mask, (2, 2))[0, 0].tolist() == [[True, False], [False, False]]
    assert reduce_mask(mask, (4, 4)) is mask


def test_gathered_vectors_are_those_of_the_feature_map():
    features = torch.randn(2, 3, 4, 5)
    positions = draw_positions(torch.ones(2, 1, 4, 5, dtype=torch.bool), 6, make_random())
    vectors = gather_features(features, positions)
    assert vectors.shape == (2, 6, 3)
    y, x = divmod(int(positions.index[1, 4]), 5)
    assert torch.equal(vectors[1, 4], features[1, :, y, x])
