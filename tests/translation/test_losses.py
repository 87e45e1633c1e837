import math

import pytest
import torch

from cryogem.translation.losses import (
    ProjectionHeads,
    RegionVectors,
    compute_contrastive_loss,
    compute_discriminator_loss,
    compute_generator_loss,
    compute_gradient_penalty,
    compute_layer_contrast,
    compute_patch_contrast,
)
from cryogem.translation.sampling import draw_region_positions, gather_features

TEMPERATURE = 0.07


def make_region(counts: list[int], n: int) -> RegionVectors:
    """Random unit vectors, the first `counts[i]` of image i drawn and the others garbage to be ignored."""
    vectors = [torch.nn.functional.normalize(torch.randn(len(counts), n, 8), dim=-1) for _ in range(2)]
    is_drawn = torch.arange(n) < torch.tensor(counts)[:, None]
    return RegionVectors(vectors[0], vectors[1], is_drawn)


def compute_slowly(particle: RegionVectors, background: RegionVectors) -> float:
    """The formula of the method, one query after the other."""
    losses = []
    for own, other in ((particle, background), (background, particle)):
        for image in range(len(own.query)):
            negatives = [key for key, is_drawn in zip(other.key[image], other.is_drawn[image], strict=True) if is_drawn]
            for position in range(own.query.shape[1]):
                if not own.is_drawn[image, position] or not negatives:
                    continue
                query = own.query[image, position]
                positive = math.exp(float(query @ own.key[image, position]) / TEMPERATURE)
                others = sum(math.exp(float(query @ key) / TEMPERATURE) for key in negatives)
                losses.append(-math.log(positive / (positive + others)))
    return sum(losses) / len(losses) if losses else 0.0


@pytest.mark.parametrize(('n_particle', 'n_background'), [
    ([5, 5], [5, 5]), ([5, 2], [7, 9]), ([1, 3], [9, 1]), ([0, 4], [6, 6]), ([3, 5], [0, 2]), ([0, 0], [4, 4]),
])
def test_the_contrastive_loss_equals_its_formula_for_regions_of_any_size(n_particle, n_background):
    torch.manual_seed(3)
    particle, background = make_region(n_particle, 5), make_region(n_background, 9)
    loss = compute_layer_contrast(particle, background, TEMPERATURE)
    assert float(loss) == pytest.approx(compute_slowly(particle, background), rel=1e-5, abs=1e-6)


def test_the_loss_over_layers_equals_the_formula_on_projected_features():
    torch.manual_seed(4)
    mask = torch.zeros(2, 1, 6, 6, dtype=torch.bool)
    mask[0, 0, :2, :2] = True
    mask[1, 0, :4] = True
    heads = ProjectionHeads([3, 5])
    queries, keys = ([torch.randn(2, c, 6, 6) for c in (3, 5)] for _ in range(2))
    positions = [draw_region_positions(mask, 10, torch.Generator().manual_seed(layer)) for layer in range(2)]
    expected = 0.0
    for layer in range(2):
        regions = [
            RegionVectors(*(heads(layer, gather_features(one[layer], where)).detach() for one in (queries, keys)),
                          where.is_drawn)
            for where in (positions[layer].particle, positions[layer].background)]
        expected += compute_slowly(*regions) / 2
    loss = compute_contrastive_loss(heads, queries, keys, positions, TEMPERATURE)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_gradients_reach_the_queries_and_the_heads_but_never_the_keys():
    mask = torch.zeros(1, 1, 6, 6, dtype=torch.bool)
    mask[..., :3, :] = True
    query, key = (torch.randn(1, 4, 6, 6, requires_grad=True) for _ in range(2))
    heads = ProjectionHeads([4])
    positions = [draw_region_positions(mask, 5, torch.Generator().manual_seed(0))]
    compute_contrastive_loss(heads, [query], [key], positions, TEMPERATURE).backward()
    assert query.grad.abs().sum() > 0
    assert all(one.grad.abs().sum() > 0 for one in heads.parameters() if one.ndim == 2)
    assert key.grad is None


def test_without_particles_the_loss_and_its_gradients_are_zero_and_finite():
    query = torch.randn(2, 4, 6, 6, requires_grad=True)
    positions = [draw_region_positions(torch.zeros(2, 1, 6, 6, dtype=torch.bool), 5, torch.Generator())]
    loss = compute_contrastive_loss(ProjectionHeads([4]), [query], [torch.randn(2, 4, 6, 6)], positions, TEMPERATURE)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(query.grad, torch.zeros_like(query))


def test_the_loss_falls_when_a_query_agrees_with_its_own_key():
    torch.manual_seed(5)
    particle, background = make_region([5], 5), make_region([9], 9)
    agreeing = [RegionVectors(one.key, one.key, one.is_drawn) for one in (particle, background)]
    assert compute_layer_contrast(*agreeing, TEMPERATURE) < compute_layer_contrast(particle, background, TEMPERATURE)


def test_projected_vectors_are_256_long_and_of_unit_length():
    vectors = ProjectionHeads([3, 6])(1, torch.randn(2, 7, 6))
    assert vectors.shape == (2, 7, 256)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(2, 7))


def test_adversarial_losses_are_zero_for_a_perfect_judge_and_a_perfect_deceiver():
    one, zero = torch.ones(2, 1, 3, 3), torch.zeros(2, 1, 3, 3)
    assert float(compute_discriminator_loss(one, zero)) == 0
    assert float(compute_discriminator_loss(zero, one)) == 1
    assert float(compute_generator_loss(one)) == 0
    assert float(compute_generator_loss(zero)) == 1


@pytest.mark.parametrize('side', [8, 16])
def test_the_gradient_penalty_of_a_linear_judge_is_its_squared_slope_whatever_the_crop_size(side):
    real = torch.randn(3, 1, side, side, requires_grad=True)
    assert float(compute_gradient_penalty(0.5 * real + 7, real)) == pytest.approx(0.25)


def test_plain_contrast_equals_its_formula_with_all_other_positions_as_negatives():
    torch.manual_seed(6)
    anywhere = make_region([6, 3], 6)
    expected = []
    for image in range(2):
        drawn = [i for i in range(6) if anywhere.is_drawn[image, i]]
        for i in drawn:
            scores = [math.exp(float(anywhere.query[image, i] @ anywhere.key[image, j]) / TEMPERATURE) for j in drawn]
            expected.append(-math.log(scores[drawn.index(i)] / sum(scores)))
    loss = compute_patch_contrast(anywhere, TEMPERATURE)
    assert float(loss) == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_the_mean_over_processes_is_the_loss_of_all_their_crops():
    torch.manual_seed(7)
    particle, background = make_region([5, 2], 5), make_region([7, 9], 9)
    counts = [torch.tensor(5.0 + 7.0), torch.tensor(2.0 + 9.0)]
    parts = [compute_layer_contrast(
        *(RegionVectors(one.query[i:i + 1], one.key[i:i + 1], one.is_drawn[i:i + 1]) for one in (particle, background)),
        TEMPERATURE, lambda n: sum(counts) / 2) for i in range(2)]
    whole = compute_layer_contrast(particle, background, TEMPERATURE)
    assert float(sum(parts) / 2) == pytest.approx(float(whole), rel=1e-5)
