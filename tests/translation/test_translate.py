import hashlib
import json

import numpy as np
import pytest
import torch

import cryogem.translation
import cryogem.translation.model
from cryogem.errors import InputError
from cryogem.translation.generator import ResidualGenerator
from cryogem.translation.model import describe_model, load_generator, read_card, save_model
from cryogem.translation.paper import PaperGenerator
from cryogem.translation.translate import Passes, plan_passes, translate, translate_all


def make_generator() -> ResidualGenerator:
    generator = ResidualGenerator(4, 2)
    torch.nn.init.normal_(generator.last.weight)
    return generator


@pytest.mark.parametrize('build', [make_generator, lambda: PaperGenerator(5, 2)], ids=['residual', 'paper'])
def test_a_saved_model_loads_as_the_same_network_in_eval_mode(tmp_path, build):
    generator = build()
    save_model(tmp_path / 'model', generator, {'pixel_size': 1.5})
    loaded = cryogem.translation.load_generator(tmp_path / 'model')
    image = torch.rand(2, 1, 64, 64) * 2 - 1
    with torch.no_grad():
        assert torch.equal(loaded(image), generator.eval()(image))
    assert not loaded.training
    card = read_card(tmp_path / 'model')
    assert card['sizes'] == generator.sizes
    assert card['description'] == {'pixel_size': 1.5}
    assert sorted(one.name for one in (tmp_path / 'model').iterdir()) == ['card.json', 'weights.safetensors']


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
    ('weights', '../weights.safetensors', 'has no weights'),
    ('weights', None, 'has no weights'),
    ('weights_sha256', 'abc', 'damaged weights.safetensors'),
])
def test_a_card_that_does_not_fit_its_weights_is_refused(tmp_path, key, value, message):
    save_model(tmp_path, make_generator(), {})
    card = json.loads((tmp_path / 'card.json').read_text())
    (tmp_path / 'card.json').write_text(json.dumps({**card, key: value}))
    with pytest.raises(InputError, match=message):
        load_generator(tmp_path)


def test_damaged_or_missing_weights_are_refused(tmp_path):
    save_model(tmp_path, make_generator(), {})
    weights = tmp_path / 'weights.safetensors'
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match=r'damaged weights\.safetensors'):
        load_generator(tmp_path)
    weights.unlink()
    with pytest.raises(InputError, match=r"has no weights 'weights\.safetensors'; train or import it again"):
        load_generator(tmp_path)


def test_a_card_without_named_values_is_refused(tmp_path):
    (tmp_path / 'card.json').write_text('[1]')
    with pytest.raises(InputError, match='without named values'):
        load_generator(tmp_path)


def make_conditioned_generator() -> ResidualGenerator:
    torch.manual_seed(0)
    generator = ResidualGenerator(4, 3, 5)
    torch.nn.init.normal_(generator.last.weight, std=0.3)
    return generator.eval()


@pytest.mark.parametrize('shape', [(200, 232), (131, 250), (64, 301)])
def test_a_frame_translated_in_tiles_equals_the_whole_one_also_at_the_seams(shape):
    generator = make_conditioned_generator()
    inputs = np.random.default_rng(0).standard_normal((5, *shape)).astype(np.float32)
    whole = translate(generator, inputs)
    tiled = translate(generator, inputs, Passes(tile=64))
    assert np.abs(whole - inputs[0]).max() > 0.1
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-4)


def test_a_frame_comes_out_of_a_batch_as_it_does_alone_whatever_lies_beside_it():
    generator = make_conditioned_generator()
    frames = list(np.random.default_rng(0).standard_normal((5, 5, 60, 52)).astype(np.float32))
    alone = translate_all(generator, frames[:1], Passes(3))[0]
    together = translate_all(generator, [frames[1], frames[0], *frames[2:]], Passes(3))
    assert len(together) == 5
    assert np.array_equal(alone, together[1])
    for one, other in zip([together[1], together[0], *together[2:]], frames, strict=True):
        np.testing.assert_allclose(one, translate(generator, other), rtol=0, atol=1e-4)


def test_frames_that_fit_the_memory_stay_whole_and_larger_ones_are_cut():
    generator = make_conditioned_generator()
    assert plan_passes(generator, (1024, 1024), 1.0) == Passes()            # on a CPU one after the other
    tile = plan_passes(generator, (4092, 5760), 1.0).tile
    assert 1024 < tile < 4092
    assert tile % generator.multiple == 0
    assert tile > plan_passes(generator, (4092, 5760), 0.5).tile
    assert plan_passes(PaperGenerator(5, 2), (4096, 4096), 0.001) == Passes()     # its norms are over whole frames


@pytest.mark.skipif(not torch.cuda.is_available(), reason='torch sees no GPU')
def test_on_a_gpu_as_many_frames_go_together_as_fit():
    generator = make_conditioned_generator().cuda()
    assert 1 < plan_passes(generator, (1024, 1024), 1.0).batch_size <= 16
    assert plan_passes(generator, (2048, 2048), 1.0).batch_size == 1


def test_too_little_memory_for_a_tile_is_refused_with_what_is_needed():
    with pytest.raises(InputError, match=r'network_memory 0.0001 GiB is too little for any tile; give at least 0.0'):
        plan_passes(make_conditioned_generator(), (512, 512), 0.0001)


def test_a_conditioned_generator_wants_all_its_maps():
    with pytest.raises(InputError, match=r'shape \(8, 8\) cannot be translated; give one \(5, h, w\) stack'):
        translate(make_conditioned_generator(), np.zeros((8, 8), np.float32))


def test_a_better_model_takes_the_place_of_the_one_before_and_its_weights(tmp_path):
    save_model(tmp_path, make_generator(), {'steps': 1}, 'weights_000001.safetensors')
    better = make_generator()
    save_model(tmp_path, better, {'steps': 2}, 'weights_000002.safetensors')
    assert sorted(one.name for one in tmp_path.iterdir()) == ['card.json', 'weights_000002.safetensors']
    assert torch.equal(load_generator(tmp_path).state_dict()['last.weight'], better.state_dict()['last.weight'])


def test_a_folder_holds_a_whole_model_at_every_moment_of_its_replacement(tmp_path, monkeypatch):
    before = make_generator()
    save_model(tmp_path, before, {'steps': 1}, 'weights_000001.safetensors')

    def die(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cryogem.translation.model, 'write_json', die)     # killed after the weights, before the card
    with pytest.raises(KeyboardInterrupt):
        save_model(tmp_path, make_generator(), {'steps': 2}, 'weights_000002.safetensors')
    assert torch.equal(load_generator(tmp_path).state_dict()['last.weight'], before.state_dict()['last.weight'])
    assert read_card(tmp_path)['description'] == {'steps': 1}


def test_the_description_of_a_model_is_replaced_without_touching_its_weights(tmp_path):
    save_model(tmp_path, make_generator(), {'steps': 1})
    before = (tmp_path / 'weights.safetensors').read_bytes()
    describe_model(tmp_path, {'steps': 1, 'gates': {}})
    assert read_card(tmp_path)['description'] == {'steps': 1, 'gates': {}}
    assert (tmp_path / 'weights.safetensors').read_bytes() == before
    load_generator(tmp_path)


def test_the_card_says_versions_and_the_checksum_of_the_weights(tmp_path):
    save_model(tmp_path, make_generator(), {})
    card = read_card(tmp_path)
    assert card['version'] == cryogem.__version__
    assert set(card['versions']) == {'torch', 'numpy', 'python'}
    assert card['weights_sha256'] == hashlib.sha256((tmp_path / 'weights.safetensors').read_bytes()).hexdigest()
