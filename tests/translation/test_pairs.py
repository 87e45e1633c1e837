import numpy as np
import pytest
import torch

from cryogem.errors import InputError
from cryogem.translation.pairs import CropBatch, CropSampler, turn_crop


def draw_simulated(rng: np.random.Generator, crop_size: int) -> tuple[np.ndarray, np.ndarray]:
    """A prior that is high exactly where its mask is true."""
    mask = rng.random((crop_size, crop_size)) > 0.5
    return mask.astype(np.float32), mask


def draw_real(rng: np.random.Generator, crop_size: int) -> np.ndarray:
    return rng.standard_normal((crop_size, crop_size)).astype(np.float32)


def make_sampler(seed: int = 0) -> CropSampler:
    return CropSampler(draw_simulated, draw_real, crop_size=6, batch_size=3, seed=seed)


def test_the_crops_of_a_step_follow_from_seed_and_step_alone():
    sampler = make_sampler()
    for step in (4, 0, 1):
        sampler.draw(step)
    late, fresh = sampler.draw(2), make_sampler().draw(2)
    assert torch.equal(late.prior, fresh.prior)
    assert torch.equal(late.mask, fresh.mask)
    assert torch.equal(late.real, fresh.real)
    assert not torch.equal(fresh.real, make_sampler().draw(3).real)
    assert not torch.equal(fresh.real, make_sampler(seed=1).draw(2).real)


def test_crops_of_one_step_differ_from_each_other():
    batch = make_sampler().draw(0)
    assert not torch.equal(batch.real[0], batch.real[1])
    assert not torch.equal(batch.prior[0], batch.prior[1])


def test_a_prior_is_turned_together_with_its_mask():
    batch = make_sampler().draw(0)
    assert batch.prior.shape == batch.real.shape == (3, 1, 6, 6)
    assert batch.prior.dtype == batch.real.dtype == torch.float32
    assert torch.equal(batch.prior > 0.5, batch.mask)


def test_the_eight_symmetries_of_the_square_are_all_different_and_keep_the_pixels():
    crop = np.arange(9).reshape(3, 3)
    turned = [turn_crop(crop, symmetry) for symmetry in range(8)]
    assert len({one.tobytes() for one in map(np.ascontiguousarray, turned)}) == 8
    assert all(sorted(one.flat) == list(range(9)) for one in turned)


def test_all_symmetries_occur_in_training():
    corner = np.zeros((4, 4), np.float32)
    corner[0, 1] = 1
    sampler = CropSampler(lambda rng, size: (corner, corner > 0), lambda rng, size: corner, 4, 40, seed=0)
    batch = sampler.draw(0)
    for crops in (batch.real, batch.prior):
        assert len({tuple(np.argwhere(one[0].numpy())[0]) for one in crops}) == 8


def test_crops_of_different_shapes_are_refused_with_the_shapes():
    crop = torch.zeros(1, 1, 8, 8)
    with pytest.raises(InputError, match=r'\(1, 1, 9, 8\).*give prior, mask and real of one shape'):
        CropBatch(crop, crop > 0, torch.zeros(1, 1, 9, 8))
    with pytest.raises(InputError, match='the mask of booleans'):
        CropBatch(crop, crop, crop)
