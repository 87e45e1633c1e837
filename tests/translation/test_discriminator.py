import pytest
import torch

from cryogem.errors import ConfigError
from cryogem.translation.discriminator import PatchDiscriminator


def test_the_instance_norm_discriminator_equals_the_published_one(golden):
    discriminator = PatchDiscriminator(4, 3, 'instance')
    discriminator.load_state_dict(golden.read_state('discriminator/state/'), strict=True)
    with torch.no_grad():
        scores = discriminator(golden.read('generator/input'))
    torch.testing.assert_close(scores, golden.read('discriminator/output'), rtol=1e-4, atol=1e-5)


def test_every_convolution_of_the_spectral_discriminator_has_largest_singular_value_one():
    torch.manual_seed(1)
    discriminator = PatchDiscriminator(4, 3, 'spectral')
    for _ in range(100):
        discriminator(torch.zeros(1, 1, 32, 32))
    convolutions = [one for one in discriminator.modules() if isinstance(one, torch.nn.Conv2d)]
    assert len(convolutions) == 5
    for convolution in convolutions:
        largest = torch.linalg.matrix_norm(convolution.weight.detach().flatten(1), 2)
        assert largest == pytest.approx(1.0, abs=0.02)


def test_the_spectral_discriminator_judges_a_patch_by_its_own_pixels_alone():
    torch.manual_seed(2)
    discriminator = PatchDiscriminator(4, 3, 'spectral').eval()
    image = torch.randn(1, 1, 256, 256)
    changed = image.clone()
    changed[..., :60, :60] = 50.0
    with torch.no_grad():
        difference = (discriminator(image) - discriminator(changed)).abs()[0, 0]
    assert difference[0, 0] > 0
    assert difference[16:, 16:].max() == 0


def test_the_widest_layer_can_be_bounded():
    discriminator = PatchDiscriminator(4, 3, 'instance', widest=2)
    assert [one.out_channels for one in discriminator.modules() if isinstance(one, torch.nn.Conv2d)] == [4, 8, 8, 8, 1]


def test_an_unknown_norm_is_refused_by_name():
    with pytest.raises(ConfigError, match="norm cannot be 'batch'; say one of instance, spectral"):
        PatchDiscriminator(4, 3, 'batch')
    with pytest.raises(ConfigError, match='give positive numbers'):
        PatchDiscriminator(0)
