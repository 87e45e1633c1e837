"""The loops of the published network's convolutions on a CPU against torch's convolutions in float32."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cryogem.translation.doubling import Doubling, FirstHalving, LastDoubling, Maps, take_maps
from cryogem.translation.hardware import has_bf16_vectors

pytestmark = pytest.mark.skipif(not has_bf16_vectors('cpu'), reason='this CPU has no vectors of bf16')

PUBLISHED = [(256, 64, 256), (512, 128, 128), (1024, 256, 64), (1024, 512, 32), (1024, 512, 16)]


def draw_integers(generator: torch.Generator, *shape: int) -> Tensor:
    """Return whole numbers so small that neither bf16 nor any sum of a test rounds them."""
    return torch.randint(-1, 2, shape, generator=generator).float()


def read_values(maps: Maps) -> Tensor:
    """Return `maps` as they were stored, (1, c, h, w) float32."""
    return torch.from_numpy(maps.values.view(np.int16)).view(torch.bfloat16).float().permute(2, 0, 1)[None]


def read_normed(maps: Maps) -> Tensor:
    """Return `maps` with their norm, (1, c, h, w) float32."""
    scale, shift = (torch.from_numpy(one)[:, None, None] for one in (maps.scale, maps.shift))
    return read_values(maps) * scale + shift


def pend(features: Tensor, scale: float, shift: float) -> Maps:
    """Return maps that become `features` (1, c, h, w) under a pending scale and shift."""
    maps = take_maps(((features - shift) / scale).bfloat16())
    return maps._replace(scale=maps.scale * np.float32(scale), shift=maps.shift + np.float32(shift))


@pytest.mark.parametrize('shape', [(2, 2), (4, 6), (16, 16), (18, 10), (6, 98), (64, 2)])
@pytest.mark.parametrize(('n_skip', 'n_inner', 'n_out'), [(16, 16, 16), (16, 48, 32)])
def test_fewer_products_give_whole_numbers_exactly(shape, n_skip, n_inner, n_out):
    draw = torch.Generator().manual_seed(0)
    skip, inner = draw_integers(draw, 1, n_skip, *shape), draw_integers(draw, 1, n_inner, *shape)
    weights = draw_integers(draw, n_skip + n_inner, n_out, 4, 4)
    expected = functional.conv_transpose2d(torch.cat([skip, inner], 1).relu(), weights, stride=2, padding=1)

    found = Doubling(weights)(take_maps(skip.bfloat16()), pend(inner, 2.0, -1.0))

    assert expected.abs().max() < 256       # whole numbers below it are exact in bf16
    assert torch.equal(read_values(found), expected)


@pytest.mark.parametrize(('n_in', 'n_out', 'side'), [(*one[:2], min(one[2], 64)) for one in PUBLISHED])
def test_the_layers_of_the_published_network_differ_by_the_rounding_of_their_numbers(n_in, n_out, side):
    torch.manual_seed(n_out)
    features, weights = torch.randn(1, n_in, side, side // 2).bfloat16(), torch.randn(n_in, n_out, 4, 4) * 0.02
    expected = functional.conv_transpose2d(features.float().relu(), weights, stride=2, padding=1)

    found = Doubling(weights)(*(take_maps(half) for half in features.chunk(2, dim=1)))

    # rounded to 8 bits are the features, differences of them, sums of weights, and what comes out
    assert (read_values(found) - expected).std() < 0.005 * expected.std()
    assert (read_normed(found) - functional.instance_norm(expected)).square().mean().sqrt() < 0.005


@pytest.mark.parametrize('level', [0.0, 1.0, 101.0])
def test_maps_of_a_constant_have_a_norm_of_zero(level):
    features, weights = torch.full((1, 16, 8, 12), level).bfloat16(), torch.zeros(32, 16, 4, 4)
    weights[:, :, 1:3, 1:3] = torch.linspace(0.3, 0.9, 16)[:, None, None]   # one tap for each px of the output

    found = Doubling(weights)(take_maps(features), take_maps(features))

    assert (read_values(found).amax((2, 3)) == read_values(found).amin((2, 3))).all()
    # scale and shift are float32: their sum is off by what such a number has for its last digit
    assert read_normed(found).abs().max() <= 2 ** -23 * np.abs(found.shift).max()


@pytest.mark.parametrize('shape', [(2, 2), (4, 24), (6, 26), (10, 70)])
def test_the_last_doubling_gives_whole_numbers_exactly(shape):
    draw = torch.Generator().manual_seed(0)
    skip, inner = draw_integers(draw, 1, 16, *shape), draw_integers(draw, 1, 32, *shape)
    weights = draw_integers(draw, 48, 1, 4, 4)
    expected = functional.conv_transpose2d(torch.cat([skip, inner], 1).relu(), weights, stride=2, padding=1) + 0.5

    found = LastDoubling(weights, torch.tensor([0.5]))(take_maps(skip.bfloat16()), pend(inner, 0.5, 1.0))

    assert torch.equal(found, expected)


@pytest.mark.parametrize('shape', [(2, 2), (64, 64), (6, 130)])
def test_the_first_halving_is_rounded_once(shape):
    torch.manual_seed(0)
    image, weights, bias = torch.randn(1, 1, *shape), torch.randn(32, 1, 4, 4), torch.randn(32)
    expected = functional.leaky_relu(functional.conv2d(image, weights, bias, stride=2, padding=1), 0.2)

    found = FirstHalving(weights, bias)(image)

    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.float(), expected, rtol=2 ** -8, atol=1e-5)


def test_any_number_of_threads_gives_the_same_bits():
    torch.manual_seed(0)
    image, features = torch.randn(1, 1, 44, 36), torch.randn(1, 16, 22, 18).bfloat16()
    first, middle = FirstHalving(torch.randn(16, 1, 4, 4), torch.randn(16)), Doubling(torch.randn(32, 16, 4, 4))
    last = LastDoubling(torch.randn(32, 1, 4, 4), torch.randn(1))
    n_threads, found = torch.get_num_threads(), []

    for n in (1, 2, 5):
        torch.set_num_threads(n)
        maps = take_maps(features)
        doubled = middle(maps, maps)
        found.append((first(image), *(torch.from_numpy(one.astype(np.float64)) for one in doubled), last(maps, maps)))
    torch.set_num_threads(n_threads)

    for more in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], more, strict=True))
