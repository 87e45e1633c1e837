import numpy as np
import pytest
import torch

from cryogem.errors import InputError
from cryogem.translation.pairs import CropBatch, CropSampler, SimulatedCrop, stream_crops, turn_crop


def draw_simulated(rng: np.random.Generator, crop_size: int) -> SimulatedCrop:
    """A prior that is high exactly where its mask is true, and a signal that is its negative."""
    mask = rng.random((crop_size, crop_size)) > 0.5
    return SimulatedCrop(mask.astype(np.float32), mask, -mask.astype(np.float32))


def draw_real(rng: np.random.Generator, crop_size: int) -> np.ndarray:
    return rng.standard_normal((crop_size, crop_size)).astype(np.float32)


def make_sampler(seed: int = 0, **more) -> CropSampler:
    return CropSampler(draw_simulated, draw_real, crop_size=6, batch_size=3, seed=seed, **more)


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
    sampler = CropSampler(lambda rng, size: SimulatedCrop(corner, corner > 0, corner), lambda rng, size: corner, 4, 40,
                          seed=0)
    batch = sampler.draw(0)
    for crops in (batch.real, batch.prior):
        assert len({tuple(np.argwhere(one[0].numpy())[0]) for one in crops}) == 8


def test_crops_of_different_shapes_are_refused_with_the_shapes():
    crop = torch.zeros(1, 1, 8, 8)
    with pytest.raises(InputError, match=r'\(1, 1, 9, 8\).*give prior, mask and real of one shape'):
        CropBatch(crop, crop > 0, torch.zeros(1, 1, 9, 8))
    with pytest.raises(InputError, match='the mask of booleans'):
        CropBatch(crop, crop, crop)


def assert_same(first: CropBatch, second: CropBatch) -> None:
    assert torch.equal(first.inputs, second.inputs)
    assert torch.equal(first.mask, second.mask)
    assert torch.equal(first.real, second.real)


def test_without_mirrors_only_the_four_turns_occur():
    corner = np.zeros((4, 4), np.float32)
    corner[0, 1] = 1
    sampler = CropSampler(lambda rng, size: SimulatedCrop(corner, corner > 0, corner), lambda rng, size: corner, 4, 40,
                          seed=0, n_symmetries=4)
    batch = sampler.draw(0)
    assert {tuple(np.argwhere(one[0].numpy())[0]) for one in batch.real} == {(0, 1), (1, 3), (3, 2), (2, 0)}


def test_a_conditioned_generator_is_given_prior_signal_and_fresh_textures():
    batch = make_sampler(is_conditioned=True).draw(0)
    assert batch.inputs.shape == (3, 5, 6, 6)
    assert torch.equal(batch.inputs[:, 1], -batch.inputs[:, 0])
    assert torch.equal(batch.inputs[:, 1:2], batch.signal)
    textures = batch.inputs[:, 2:]
    assert len({one.tobytes() for one in textures.flatten(0, 1).numpy()}) == 9


def test_processes_share_the_crops_of_a_step_between_them():
    whole = make_sampler().draw(3)
    parts = [make_sampler(rank=rank, n_processes=2).draw(3) for rank in range(2)]
    assert [one.numbers for one in parts] == [(0, 2), (1,)]
    for part in parts:
        assert torch.equal(part.inputs, whole.inputs[list(part.numbers)])
        assert torch.equal(part.real, whole.real[list(part.numbers)])


@pytest.mark.parametrize('n_workers', [1, 2])
def test_a_stream_gives_the_crops_of_its_steps_in_order_with_any_number_of_workers(n_workers):
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    drawn = list(stream_crops(make_sampler(), 2, 6, n_workers))
    assert torch.equal(before, torch.random.get_rng_state())
    assert len(drawn) == 4
    for step, batch in enumerate(drawn, 2):
        assert_same(batch, make_sampler().draw(step))


class BrokenSampler:
    """Finds an unusable micrograph at the third step."""

    def draw(self, step: int) -> CropBatch:
        if step == 2:
            raise InputError('micrograph b.mrc is damaged; leave it out')
        return make_sampler().draw(step)


@pytest.mark.parametrize('n_workers', [1, 2])
def test_an_error_of_a_worker_reaches_the_training_as_it_is(n_workers):
    stream = stream_crops(BrokenSampler(), 0, 6, n_workers)
    with pytest.raises(InputError, match=r'^micrograph b\.mrc is damaged; leave it out$'):
        list(stream)
