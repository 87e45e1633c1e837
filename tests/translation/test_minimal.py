"""The convolution with fewer products against torch's, and what it is used for."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cryogem.translation.discriminator import PatchDiscriminator
from cryogem.translation.minimal import MinimalConv2d, build_filter

KINDS = [torch.float32, torch.bfloat16]
ROUNDING = {torch.float32: 2e-5, torch.bfloat16: 0.015}         # of the largest value


@pytest.fixture
def everywhere(monkeypatch) -> None:
    """Take fewer products however small a frame is."""
    monkeypatch.setattr('cryogem.translation.minimal._FEWEST_TILES', 1)
    monkeypatch.setattr('cryogem.translation.minimal._FEWEST_MAPS', 1)
    monkeypatch.setattr('torch.cpu._is_amx_tile_supported', lambda: False)


def convolve(features: Tensor, weight: Tensor, bias: Tensor, gradient: Tensor) -> list[Tensor]:
    """Return torch's convolution in float64 and its gradients: of features, kernel and bias."""
    inputs = [one.double().requires_grad_() for one in (features, weight, bias)]
    output = functional.conv2d(*inputs, padding=1)
    return [output.detach(), *torch.autograd.grad(output, inputs, gradient.double())]


def convolve_minimal(layer: MinimalConv2d, features: Tensor, gradient: Tensor) -> list[Tensor]:
    """Return the same of a layer."""
    features = features.clone().requires_grad_()
    output = layer(features)
    found = torch.autograd.grad(output, [features, layer.weight, layer.bias], gradient.to(output.dtype))
    return [output.detach(), *found]


@pytest.mark.usefixtures('everywhere')
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(('n_frames', 'height', 'width'),
                         [(1, 16, 16), (1, 17, 17), (1, 17, 30), (2, 9, 41), (1, 32, 5)])
def test_output_and_gradients_are_those_of_torch(kind, layout, n_frames, height, width):
    torch.manual_seed(height)
    layer = MinimalConv2d(24, 40)
    layer.weight.data = layer.weight.data.contiguous(memory_format=layout)
    features = torch.randn(n_frames, 24, height, width).contiguous(memory_format=layout)
    gradient = torch.randn(n_frames, 40, height - 1, width - 1)
    assert layer.takes_fewer(features, kind)

    with torch.autocast('cpu', torch.bfloat16, enabled=kind == torch.bfloat16):
        found = convolve_minimal(layer, features, gradient)

    expected = convolve(features, layer.weight.detach(), layer.bias.detach(), gradient)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert (one.double() - other).abs().max() < ROUNDING[kind] * other.abs().max()
    assert found[2].dtype == torch.float32


@pytest.mark.usefixtures('everywhere')
def test_whole_numbers_are_exact_in_bf16():
    torch.manual_seed(0)
    layer = MinimalConv2d(4, 8)
    layer.weight.data, layer.bias.data = (torch.randint(-1, 2, one.shape).float() for one in (layer.weight, layer.bias))
    features, gradient = torch.randint(-1, 2, (1, 4, 10, 11)).float(), torch.randint(-1, 2, (1, 8, 9, 10)).float()

    with torch.autocast('cpu', torch.bfloat16):
        found = convolve_minimal(layer, features, gradient)

    expected = convolve(features, layer.weight.detach(), layer.bias.detach(), gradient)
    assert max(one.abs().max() for one in expected) < 256       # whole numbers below it are exact in bf16
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.double(), other)


@pytest.mark.usefixtures('everywhere')
def test_frames_of_whole_tiles_and_of_parts_of_them_agree():
    """A px of the output depends on nothing but the 16 px below it, wherever the tiles begin."""
    torch.manual_seed(3)
    layer, features = MinimalConv2d(8, 8), torch.randn(1, 8, 24, 24)
    with torch.no_grad():
        whole, part = layer(features), layer(features[..., 3:, 5:])
    torch.testing.assert_close(part[..., 1:, 1:], whole[..., 4:, 6:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('kind', 'products', 'taps'), [(torch.float32, 49, 256), (torch.bfloat16, 36, 64)])
def test_a_tile_takes_as_few_products_as_are_claimed(kind, products, taps):
    minimal = build_filter(kind)
    assert len(minimal.of_input) == len(minimal.of_kernel) == products
    assert minimal.size ** 2 * 16 == taps
    assert minimal.of_input.shape[1] == minimal.reach ** 2


@pytest.mark.usefixtures('everywhere')
def test_what_needs_no_gradient_gets_none():
    layer = MinimalConv2d(4, 4).requires_grad_(False)
    features = torch.randn(1, 4, 8, 8, requires_grad=True)
    layer(features).sum().backward()
    assert features.grad is not None
    assert layer.weight.grad is None
    layer.requires_grad_(True)
    layer(features.detach()).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.usefixtures('everywhere')
def test_a_gradient_of_its_gradient_is_refused():
    layer, features = MinimalConv2d(4, 4), torch.randn(1, 4, 8, 8, requires_grad=True)
    slope, = torch.autograd.grad(layer(features).square().sum(), features, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        slope.square().sum().backward()


@pytest.mark.parametrize(('maps', 'side', 'kind', 'expected'), [
    ((512, 1024), 128, torch.float32, True), ((512, 1024), 128, torch.bfloat16, True),
    ((512, 1024), 32, torch.float32, False),        # few tiles
    ((64, 1024), 128, torch.float32, False),        # few maps
    ((512, 1024), 128, torch.float64, False),
])
def test_it_is_taken_where_it_gains(monkeypatch, maps, side, kind, expected):
    monkeypatch.setattr('torch.cpu._is_amx_tile_supported', lambda: False)
    with torch.device('meta'):
        layer = MinimalConv2d(*maps)
    assert layer.takes_fewer(torch.empty(1, maps[0], 1, 1).expand(-1, -1, side, side), kind) == expected


def test_other_devices_and_processors_with_tiles_of_bf16_are_left_to_torch(monkeypatch):
    with torch.device('meta'):
        layer, features = MinimalConv2d(512, 1024), torch.empty(1, 512, 128, 128)
    assert not layer.takes_fewer(features, torch.float32)
    monkeypatch.setattr('torch.cpu._is_amx_tile_supported', lambda: True)
    on_cpu = torch.empty(1, 512, 1, 1).expand(-1, -1, 128, 128)
    assert not layer.takes_fewer(on_cpu, torch.bfloat16)
    assert layer.takes_fewer(on_cpu, torch.float32)


@pytest.mark.usefixtures('everywhere')
def test_the_published_discriminator_stays_what_it_is(golden):
    discriminator = PatchDiscriminator(4, 3, 'instance')
    discriminator.load_state_dict(golden.read_state('discriminator/state/'), strict=True)
    layers = [one for one in discriminator.modules() if isinstance(one, nn.Conv2d)]
    assert [isinstance(one, MinimalConv2d) for one in layers] == [False, False, False, True, False]
    with torch.no_grad():
        scores = discriminator(golden.read('generator/input'))
    torch.testing.assert_close(scores, golden.read('discriminator/output'), rtol=1e-4, atol=1e-5)


def test_the_discriminator_with_a_gradient_penalty_has_plain_convolutions():
    assert not any(isinstance(one, MinimalConv2d) for one in PatchDiscriminator(8, 3, 'spectral').modules())
