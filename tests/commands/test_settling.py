"""How strong the signal of a trained model is, settled by features that see particles."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cryogem.commands.settling import change_signal, find_change, settle_signal
from cryogem.translation.generator import ResidualGenerator
from cryogem.translation.model import load_generator, read_card, save_model
from cryogem.translation.paper import PaperGenerator

CLEAN = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 8, 8)


class Crops:
    """Stands for crops whose real ones have so much more signal than simulated ones."""

    def __init__(self, missing: float, name: str = 'topaz_frechet'):
        self.clean, self.measure, self._missing = CLEAN, SimpleNamespace(name=name), missing

    def translate(self, translate) -> np.ndarray:
        inputs = torch.from_numpy(CLEAN).repeat(1, 2, 1, 1)         # a prior that is nothing but signal
        return translate(inputs)[:, 0].numpy()

    def measure_distance(self, crops: np.ndarray) -> float:
        return 3.0 + float(np.square(crops - (1 + self._missing) * CLEAN).mean())

    def judge(self, translate) -> float:
        return self.measure_distance(self.translate(translate))


@pytest.fixture
def plan() -> SimpleNamespace:
    return SimpleNamespace(config=SimpleNamespace(seed=0), real=None, draw_crops=None)


@pytest.fixture
def model(tmp_path) -> Path:
    save_model(tmp_path, ResidualGenerator(4, 2, n_inputs=2), {'steps': 20, 'realism': {'model': 9.0, 'prior': 8.0}},
               'weights_000020.safetensors')
    return tmp_path


def settle(monkeypatch, plan, model: Path, learned: float, held_out: Crops) -> float:
    """Settle a model where the real crops learned from have so much more signal; return its gain of the signal."""
    monkeypatch.setattr(plan, 'draw_crops', lambda *_: Crops(learned))
    settle_signal(plan, model, held_out)
    return float(torch.tanh(load_generator(model).gains[1].detach()))


@pytest.mark.parametrize(('missing', 'expected'),
                         [(0.05, 0.05), (-0.03, -0.03), (0.0, 0.0), (0.4, 0.12), (-0.3, -0.06)])
def test_the_change_is_that_of_the_least_distance_within_bounds(missing, expected):
    assert find_change(Crops(missing), lambda inputs: inputs[:, :1]) == pytest.approx(expected, abs=1e-3)


def test_a_distance_without_a_least_value_takes_the_best_that_was_tried():
    crops = Crops(0.0)
    crops.measure_distance = lambda one: -float(np.square(one).mean())
    assert find_change(crops, lambda inputs: inputs[:, :1]) == 0.12


def test_the_signal_of_a_changed_generator_is_stronger_by_that_share():
    generator, inputs = ResidualGenerator(4, 2, n_inputs=2), torch.randn(1, 2, 16, 16)
    with torch.no_grad():
        changed = change_signal(generator, 0.05)(inputs)
    torch.testing.assert_close(changed, inputs[:, :1] + 0.05 * inputs[:, 1:], rtol=0, atol=1e-6)
    assert generator.gains.tolist() == [0.0, 0.0]


def test_a_model_is_settled_once_and_says_so_in_its_card(monkeypatch, plan, model):
    assert settle(monkeypatch, plan, model, 0.05, Crops(0.06)) == pytest.approx(0.05, abs=1e-3)
    description = read_card(model)['description']
    assert description['signal_change'] == pytest.approx(0.05, abs=1e-3)
    assert description['realism']['model'] == pytest.approx(3.0, abs=1e-3)
    assert description['realism']['prior'] == 8.0
    assert len(list(model.glob('*.safetensors'))) == 1
    assert settle(monkeypatch, plan, model, 0.11, Crops(0.11)) == pytest.approx(0.05, abs=1e-3)


def test_a_change_that_held_out_crops_do_not_confirm_is_not_kept(monkeypatch, plan, model):
    before = read_card(model)
    assert settle(monkeypatch, plan, model, 0.05, Crops(-0.02)) == 0
    assert read_card(model) == before


def test_textures_and_the_published_network_settle_nothing(monkeypatch, plan, model, tmp_path):
    assert settle(monkeypatch, plan, model, 0.05, Crops(0.05, 'statistics')) == 0
    save_model(tmp_path / 'paper', PaperGenerator(5, 2), {'steps': 20})
    settle_signal(plan, tmp_path / 'paper', Crops(0.05))
    assert 'signal_change' not in read_card(tmp_path / 'paper')['description']
