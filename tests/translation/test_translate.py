import json

import numpy as np
import pytest
import torch

import cryogem.translation
from cryogem.errors import InputError
from cryogem.translation.generator import PaperGenerator, ResidualGenerator
from cryogem.translation.translate import load_generator, read_card, save_model, translate


def make_generator() -> ResidualGenerator:
    generator = ResidualGenerator(4, 2)
    torch.nn.init.normal_(generator.last.weight)
    return generator


@pytest.mark.parametrize('generator', [make_generator(), PaperGenerator(5, 2)], ids=['residual', 'paper'])
def test_a_saved_model_loads_as_the_same_network_in_eval_mode(tmp_path, generator):
    save_model(tmp_path / 'model', generator, {'pixel_size': 1.5})
    loaded = cryogem.translation.load_generator(tmp_path / 'model')
    image = torch.rand(2, 1, 64, 64) * 2 - 1
    with torch.no_grad():
        assert torch.equal(loaded(image), generator.eval()(image))
    assert not loaded.training
    card = read_card(tmp_path / 'model')
    assert card['sizes'] == generator.sizes
    assert card['description'] == {'pixel_size': 1.5}
    assert sorted(one.name for one in (tmp_path / 'model').iterdir()) == ['card.json', 'weights.pt']


def test_loading_a_model_leaves_the_global_random_state_alone(tmp_path):
    save_model(tmp_path, make_generator(), {})
    before = torch.random.get_rng_state()
    load_generator(tmp_path)
    assert torch.equal(before, torch.random.get_rng_state())


def test_translating_a_micrograph_is_running_its_network_on_it():
    generator = make_generator().eval()
    image = np.random.default_rng(0).normal(size=(31, 45)).astype(np.float32)
    image.flags.writeable = False
    output = translate(generator, image)
    assert output.shape == (31, 45)
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, generator(torch.from_numpy(image.copy())[None, None]).detach()[0, 0].numpy(),
                               rtol=1e-5, atol=1e-5)


def test_an_image_with_values_that_are_no_numbers_is_refused():
    image = np.zeros((8, 8), np.float32)
    image[3, 3] = np.nan
    with pytest.raises(InputError, match='one \\(h, w\\) frame of finite numbers'):
        translate(make_generator(), image)
    with pytest.raises(InputError, match=r'shape \(1, 8, 8\)'):
        translate(make_generator(), np.zeros((1, 8, 8), np.float32))


def test_a_missing_folder_or_card_is_named(tmp_path):
    with pytest.raises(InputError, match=r'nowhere.* is no folder; give the output folder of cryogem train'):
        load_generator(tmp_path / 'nowhere')
    with pytest.raises(InputError, match=r'no readable card\.json'):
        load_generator(tmp_path)


@pytest.mark.parametrize(('key', 'value', 'message'), [
    ('architecture', 'transformer', "unknown architecture 'transformer'; this program knows residual, paper"),
    ('sizes', {'channels': 5, 'n_levels': 2}, 'do not fit the sizes'),
    ('sizes', {'width': 5}, 'impossible sizes'),
    ('sizes', {'channels': 0, 'n_levels': 2}, 'impossible sizes'),
    ('weights_sha256', 'abc', 'damaged weights.pt'),
])
def test_a_card_that_does_not_fit_its_weights_is_refused(tmp_path, key, value, message):
    save_model(tmp_path, make_generator(), {})
    card = json.loads((tmp_path / 'card.json').read_text())
    (tmp_path / 'card.json').write_text(json.dumps({**card, key: value}))
    with pytest.raises(InputError, match=message):
        load_generator(tmp_path)


def test_damaged_or_missing_weights_are_refused(tmp_path):
    save_model(tmp_path, make_generator(), {})
    weights = tmp_path / 'weights.pt'
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match=r'damaged weights\.pt'):
        load_generator(tmp_path)
    weights.unlink()
    with pytest.raises(InputError, match=r'has no weights\.pt'):
        load_generator(tmp_path)


def test_a_card_without_named_values_is_refused(tmp_path):
    (tmp_path / 'card.json').write_text('[1]')
    with pytest.raises(InputError, match='without named values'):
        load_generator(tmp_path)
