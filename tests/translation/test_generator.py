import numpy as np
import pytest
import torch

from cryogem.errors import ConfigError, InputError
from cryogem.translation.generator import ResidualGenerator, pad_to_multiple
from cryogem.translation.paper import FrameNorm, PaperGenerator


def make_trained_generator(channels: int = 4, n_levels: int = 3) -> ResidualGenerator:
    """A generator whose last convolution is not zero any more."""
    torch.manual_seed(0)
    generator = ResidualGenerator(channels, n_levels)
    torch.nn.init.normal_(generator.last.weight, std=0.3)
    return generator.eval()


def find_reach(generator: ResidualGenerator, side: int) -> int:
    """Largest distance in px, over all output px next to the centre, at which an input px has an influence."""
    reach = 0
    for y in range(side // 2, side // 2 + generator.multiple):
        image = torch.randn(1, 1, side, side, requires_grad=True)
        generator(image)[0, 0, y, y].backward()
        influences = np.argwhere(image.grad[0, 0].numpy() != 0)
        reach = max(reach, int(np.abs(influences - y).max()))
    return reach


@pytest.mark.parametrize('shape', [(64, 64), (61, 75), (1, 3), (2, 200)])
def test_an_untrained_residual_generator_returns_its_input_exactly(shape):
    image = torch.randn(2, 1, *shape)
    torch.testing.assert_close(ResidualGenerator(4, 3)(image), image, rtol=0, atol=0)


@pytest.mark.parametrize('shape', [(61, 75), (1, 3), (2, 200)])
def test_a_trained_residual_generator_takes_any_shape_and_changes_it(shape):
    image = torch.randn(2, 1, *shape)
    output = make_trained_generator()(image)
    assert output.shape == image.shape
    assert (output - image).abs().max() > 1e-3


@pytest.mark.parametrize('n_levels', [1, 2, 3, 4])
def test_the_receptive_field_is_what_the_network_really_sees(n_levels):
    generator = make_trained_generator(n_levels=n_levels).double()
    torch.set_default_dtype(torch.float64)
    try:
        reach = find_reach(generator, 160)
    finally:
        torch.set_default_dtype(torch.float32)
    radius = generator.receptive_field // 2
    assert radius - generator.multiple < reach <= radius


def test_a_tile_with_a_margin_of_the_receptive_field_equals_that_part_of_the_whole_frame():
    generator = make_trained_generator().double()
    frame = (5 * torch.randn(1, 1, 190, 200) + torch.linspace(-3, 3, 200)).double()
    margin = -(-(generator.receptive_field // 2) // generator.multiple) * generator.multiple
    with torch.no_grad():
        whole = generator(frame)
        tile = generator(frame[..., 64 - margin:96 + margin, 80 - margin:120 + margin])
    torch.testing.assert_close(tile[..., margin:-margin, margin:-margin], whole[..., 64:96, 80:120],
                               rtol=1e-12, atol=1e-12)


def test_the_gains_of_noise_and_signal_act_on_all_places():
    torch.manual_seed(0)
    generator = ResidualGenerator(4, 3, 5)
    inputs = torch.randn(1, 5, 32, 48)
    torch.testing.assert_close(generator(inputs), inputs[:, :1], rtol=0, atol=0)
    with torch.no_grad():
        generator.gains.copy_(torch.tensor([0.5, -0.2]).atanh())
    signal, noise = inputs[:, 1:2], inputs[:, :1] - inputs[:, 1:2]
    torch.testing.assert_close(generator(inputs), 0.8 * signal + 1.5 * noise)


def test_one_pass_gives_the_translation_and_the_features_of_two():
    for generator, shape in ((make_trained_generator(), (2, 1, 40, 52)), (PaperGenerator(5, 2).eval(), (1, 1, 64, 32))):
        image = torch.randn(*shape)
        with torch.no_grad():
            output, features = generator.translate_with_features(image)
            assert torch.equal(output, generator(image))
            for one, other in zip(features, generator.encode(image), strict=True):
                assert torch.equal(one, other)


def test_the_norm_of_a_single_frame_is_that_of_a_batch():
    features = (3 + 1e-2 * torch.randn(2, 5, 24, 40)).contiguous(memory_format=torch.channels_last)
    alone = torch.cat([FrameNorm()(features[:1]), FrameNorm()(features[1:])])
    torch.testing.assert_close(alone, FrameNorm()(features), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(alone.var((2, 3), correction=0), torch.full((2, 5), 1e-4 / 1.1e-4), rtol=0.1, atol=0)


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_the_gradient_of_a_frame_comes_in_the_layout_of_its_maps(layout):
    torch.manual_seed(7)
    features = torch.randn(1, 8, 12, 10).contiguous(memory_format=layout).requires_grad_()
    gradient = torch.randn(1, 16, 12, 10).contiguous(memory_format=layout)[:, 8:]       # a part of joined maps
    normed, arrived = FrameNorm()(features), []
    normed.register_hook(lambda one: arrived.append(one.is_contiguous(memory_format=layout)))
    found, = torch.autograd.grad(normed, features, gradient)
    expected, = torch.autograd.grad(torch.nn.functional.instance_norm(features), features, gradient)
    assert arrived == [True]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_translating_one_crop_does_not_depend_on_the_others_of_its_batch():
    generator = make_trained_generator()
    batch = torch.randn(3, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(generator(batch)[1:2], generator(batch[1:2]), rtol=1e-5, atol=1e-5)


def test_encoder_features_have_the_stated_channels_and_sizes():
    generator = ResidualGenerator(4, 3)
    shapes = [tuple(one.shape) for one in generator.encode(torch.randn(2, 1, 30, 50))]
    assert shapes == [(2, 4, 16, 28), (2, 8, 8, 14), (2, 8, 4, 7)]
    assert generator.feature_channels == (4, 8, 8)


def test_the_input_is_not_changed_in_place():
    image = torch.randn(1, 1, 32, 32)
    kept = image.clone()
    make_trained_generator()(image)
    PaperGenerator(5, 2).eval()(image)
    PaperGenerator(5, 2).eval().encode(image)
    assert torch.equal(image, kept)


def test_padding_mirrors_the_frame_or_repeats_its_edge_where_it_is_too_narrow():
    image = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert pad_to_multiple(image, 4)[0, 0, 0].tolist() == [0, 1, 2, 2]
    assert pad_to_multiple(image[..., :1, :], 2)[0, 0].tolist() == [[0, 1, 2, 2], [0, 1, 2, 2]]
    assert pad_to_multiple(torch.arange(5.0).reshape(1, 1, 1, 5).expand(1, 1, 6, 5), 6)[0, 0, 0].tolist() == [
        0, 1, 2, 3, 4, 3]


def test_the_paper_generator_equals_the_published_network(golden, golden_input):
    generator = PaperGenerator(depth=8, width=2)
    generator.load_state_dict(golden.read_state('generator/state/'), strict=True)
    with torch.no_grad():
        output = generator(golden_input)
        features = generator.encode(golden_input)
    torch.testing.assert_close(output, golden.read('generator/output'), rtol=1e-4, atol=1e-5)
    assert len(features) == 5
    for layer, feature in enumerate(features, start=1):
        torch.testing.assert_close(feature, golden.read(f'generator/feature_{layer}'), rtol=1e-4, atol=1e-5)


def test_in_double_precision_the_paper_generator_differs_from_the_published_network_by_its_rounding_only(golden):
    generator = PaperGenerator(depth=8, width=2).double()
    generator.load_state_dict(golden.read_state('generator/state/'), strict=True)
    image = golden.read('generator/input').double()
    image = (image - image.min()) / (image.max() - image.min() + 1e-8) * 2 - 1
    with torch.no_grad():
        found = [generator(image), *generator.encode(image)]
    # The instance norm of nearly constant maps (sd 6e-4) amplifies the rounding in the golden arrays to 2e-5.
    for array, name in zip(found, ['output', *(f'feature_{layer}' for layer in range(1, 6))], strict=True):
        torch.testing.assert_close(array, golden.read(f'generator/{name}').double(), rtol=1e-4, atol=2.5e-5)


def test_the_paper_generator_has_the_published_size_by_default():
    with torch.device('meta'):
        generator = PaperGenerator()
    state = generator.state_dict()
    assert generator.sizes == {'depth': 10, 'width': 64}
    assert sum(key.endswith('weight') for key in state) == 20
    assert state['model.submodule.down.1.weight'].shape == (128, 64, 4, 4)
    assert state['model.submodule.submodule.submodule.submodule.up.1.weight'].shape == (1024, 512, 4, 4)


def test_the_paper_generator_names_the_sides_it_accepts():
    with pytest.raises(InputError, match=r'\(32, 48\) does not fit this model; give sides that are multiples of 32'):
        PaperGenerator(5, 2)(torch.zeros(1, 1, 32, 48))


def test_impossible_sizes_of_a_generator_are_refused():
    with pytest.raises(ConfigError, match='give at least 5 and 1'):
        PaperGenerator(4, 2)
    with pytest.raises(ConfigError, match='give positive numbers'):
        ResidualGenerator(24, 0)
    with pytest.raises(ConfigError, match='give positive numbers'):
        ResidualGenerator(24, 3, 0)
