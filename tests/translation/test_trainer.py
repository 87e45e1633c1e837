import copy
import csv
import dataclasses
import itertools
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from cryogem.errors import ConfigError, InputError, OutputError, TrainingError
from cryogem.io.checkpoint import load_checkpoint, save_checkpoint
from cryogem.translation import load_generator
from cryogem.translation.generator import use_channels_last
from cryogem.translation.learner import Learner, find_rate_factor
from cryogem.translation.model import read_card
from cryogem.translation.pairs import CropBatch, CropSampler, SimulatedCrop
from cryogem.translation.settings import PAPER, TrainerSettings, build_networks
from cryogem.translation.statistics import StatisticsGoal, measure_statistics
from cryogem.translation.trainer import COLUMNS, Support, train

SETTINGS = TrainerSettings(
    max_steps=4, checkpoint_every=2, learning_rate=1e-3, contrastive_weight=1.0, temperature=0.07, n_positions=16,
    seed=5, channels=4, n_levels=2, discriminator_width=4, discriminator_layers=2)


def draw_simulated(rng: np.random.Generator, size: int) -> SimulatedCrop:
    mask = np.zeros((size, size), bool)
    mask[4:20, 8:24] = True
    signal = -mask.astype(np.float32)
    return SimulatedCrop(rng.standard_normal((size, size), dtype=np.float32) + signal, mask, signal)


def draw_real(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.gamma(2.0, 1.0, (size, size)).astype(np.float32) - 2


def make_sampler() -> CropSampler:
    return CropSampler(draw_simulated, draw_real, crop_size=32, batch_size=2, seed=1)


class FailingSampler:
    """Draws as usual until `step`, when something else than crops comes."""

    def __init__(self, step: int, error: type[BaseException] | None = None):
        self._sampler, self._step, self._error = make_sampler(), step, error

    def draw(self, step: int) -> CropBatch:
        batch = self._sampler.draw(step)
        if step < self._step:
            return batch
        if self._error:
            raise self._error
        return dataclasses.replace(batch, real=torch.full_like(batch.real, torch.nan))


def change(**changes) -> TrainerSettings:
    return dataclasses.replace(SETTINGS, **changes)


def read_rows(folder) -> list[dict[str, str]]:
    """Rows of metrics without the seconds, which no seed fixes."""
    with (folder / 'metrics.csv').open() as file:
        return [{key: value for key, value in row.items() if key != 'seconds'} for row in csv.DictReader(file)]


def flatten(state, prefix='') -> dict:
    """All tensors and values of nested dictionaries and lists by their paths."""
    if isinstance(state, torch.Tensor) or not isinstance(state, (dict, list, tuple)):
        return {prefix: state}
    items = state.items() if isinstance(state, dict) else enumerate(state)
    return dict(itertools.chain.from_iterable(flatten(value, f'{prefix}/{key}').items() for key, value in items))


def assert_same_training(first, second) -> None:
    """Everything a later step depends on, and all metrics, are equal to the last bit."""
    states = [flatten(load_checkpoint(folder / 'checkpoint.pt')['learner']) for folder in (first, second)]
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        same = torch.equal(value, states[1][key]) if isinstance(value, torch.Tensor) else value == states[1][key]
        assert same, key
    assert read_rows(first) == read_rows(second)


def test_training_leaves_the_files_of_a_model_folder(tmp_path):
    result = train(make_sampler(), SETTINGS, tmp_path / 'out', description={'preset': 'fast'})
    assert sorted(str(one.relative_to(tmp_path / 'out')) for one in (tmp_path / 'out').rglob('*') if one.is_file()) == [
        'card.json', 'checkpoint.pt', 'metrics.csv', 'samples/step_000002.png', 'samples/step_000004.png',
        'weights_000004.safetensors']
    rows = read_rows(tmp_path / 'out')
    assert [row['step'] for row in rows] == ['1', '2', '3', '4']
    assert tuple(rows[0]) == COLUMNS[:-1]
    assert result.step == 4
    description = read_card(tmp_path / 'out')['description']
    assert description['steps'] == 4
    assert description['preset'] == 'fast'


def test_the_saved_model_is_the_average_and_has_learned_a_residual(tmp_path):
    train(make_sampler(), SETTINGS, tmp_path)
    loaded = load_generator(tmp_path).state_dict()
    averaged = load_checkpoint(tmp_path / 'checkpoint.pt')['learner']['averaged']
    assert all(torch.equal(value, averaged[key]) for key, value in loaded.items())
    assert loaded['last.weight'].abs().max() > 0


def test_a_resumed_training_equals_an_uninterrupted_one_to_the_last_bit(tmp_path):
    train(make_sampler(), SETTINGS, tmp_path / 'straight')
    train(make_sampler(), change(max_steps=2), tmp_path / 'resumed')
    result = train(make_sampler(), SETTINGS, tmp_path / 'resumed', resume=True)
    assert result.step == 4
    assert_same_training(tmp_path / 'straight', tmp_path / 'resumed')


def test_a_training_killed_between_checkpoints_continues_from_the_last_one(tmp_path):
    train(make_sampler(), SETTINGS, tmp_path / 'straight')
    with pytest.raises(KeyboardInterrupt):
        train(FailingSampler(3, KeyboardInterrupt), SETTINGS, tmp_path / 'killed')
    assert len(read_rows(tmp_path / 'killed')) == 3
    train(make_sampler(), SETTINGS, tmp_path / 'killed', resume=True)
    assert_same_training(tmp_path / 'straight', tmp_path / 'killed')


def test_a_training_killed_before_its_first_checkpoint_begins_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(FailingSampler(1, KeyboardInterrupt), SETTINGS, tmp_path / 'killed')
    train(make_sampler(), SETTINGS, tmp_path / 'killed', resume=True)
    train(make_sampler(), SETTINGS, tmp_path / 'straight')
    assert_same_training(tmp_path / 'straight', tmp_path / 'killed')


def test_training_depends_on_its_seed_and_leaves_the_global_random_state_alone(tmp_path):
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    train(make_sampler(), SETTINGS, tmp_path / 'one')
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(8)
    train(make_sampler(), SETTINGS, tmp_path / 'same')
    train(make_sampler(), change(seed=6), tmp_path / 'other')
    assert_same_training(tmp_path / 'one', tmp_path / 'same')
    assert read_rows(tmp_path / 'one') != read_rows(tmp_path / 'other')


def test_a_finished_training_says_so_and_changes_nothing(tmp_path, caplog):
    train(make_sampler(), SETTINGS, tmp_path)
    before = {one: one.read_bytes() for one in tmp_path.rglob('*') if one.is_file()}
    with caplog.at_level(logging.INFO, logger='cryogem'):
        result = train(FailingSampler(0, RuntimeError), SETTINGS, tmp_path, resume=True)
    assert 'is finished already, after 4 steps' in caplog.text
    assert result.step == 4
    assert set(result.losses) == set(COLUMNS) - {'step', 'seconds', 'realism_model', 'realism_prior'}
    assert {one: one.read_bytes() for one in tmp_path.rglob('*') if one.is_file()} == before


def test_training_stops_when_its_minutes_are_used_up_and_goes_on_with_more(tmp_path):
    result = train(make_sampler(), change(max_minutes=1e-9), tmp_path)
    assert result.step == 1
    assert load_generator(tmp_path).sizes == {'channels': 4, 'n_levels': 2, 'n_inputs': 1}
    assert train(make_sampler(), change(max_minutes=1e-9), tmp_path, resume=True).step == 1
    assert train(make_sampler(), SETTINGS, tmp_path, resume=True).step == 4


def test_an_existing_training_is_not_overwritten_unless_continued(tmp_path):
    train(make_sampler(), SETTINGS, tmp_path)
    with pytest.raises(OutputError, match='holds a training already; say --continue'):
        train(make_sampler(), SETTINGS, tmp_path)


def test_losses_that_are_not_finite_stop_the_training_and_keep_the_checkpoint(tmp_path):
    train(make_sampler(), change(max_steps=2), tmp_path)
    names = ('checkpoint.pt', 'weights_000002.safetensors', 'card.json')
    before = {name: (tmp_path / name).read_bytes() for name in names}
    with pytest.raises(TrainingError, match='d_loss became nan in step 4, the last checkpoint is kept'):
        train(FailingSampler(3), change(checkpoint_every=10), tmp_path, resume=True)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert len(read_rows(tmp_path)) == 3


def test_losses_that_are_not_finite_before_the_first_checkpoint_say_so(tmp_path):
    with pytest.raises(TrainingError, match='in step 1, no checkpoint was written yet'):
        train(FailingSampler(0), SETTINGS, tmp_path)


def test_a_run_with_other_settings_is_not_continued(tmp_path):
    train(make_sampler(), SETTINGS, tmp_path)
    with pytest.raises(ConfigError, match='learning_rate cannot be 0.5 because this training began with 0.001'):
        train(make_sampler(), change(learning_rate=0.5), tmp_path, resume=True)


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    save_checkpoint(tmp_path / 'checkpoint.pt', {'settings': dataclasses.asdict(SETTINGS), 'learner': {}})
    with pytest.raises(InputError, match='does not fit this training'):
        train(make_sampler(), SETTINGS, tmp_path, resume=True)


def test_without_contrastive_weight_its_loss_is_left_out(tmp_path):
    train(make_sampler(), change(contrastive_weight=0.0, max_steps=1), tmp_path)
    assert float(read_rows(tmp_path)[0]['contrastive_loss']) == 0


def test_a_step_that_is_not_finite_leaves_the_networks_as_they_were():
    learner = Learner(SETTINGS)
    learner.learn(make_sampler().draw(0), 0)
    before = copy.deepcopy(flatten(learner.state_dict()))
    losses = learner.learn(FailingSampler(0).draw(0), 1)
    assert not np.isfinite(losses['d_loss'])
    after = flatten(learner.state_dict())
    # The power iteration of the spectral norm goes on with every look at an image; it knows the weights only.
    weights = [key for key, value in before.items() if isinstance(value, torch.Tensor) and key[-2:] not in ('_u', '_v')]
    assert [key for key in weights if not torch.equal(before[key], after[key])] == []


def test_the_discriminator_learns_to_tell_real_from_simulated_and_the_generator_follows():
    learner = Learner(change(learning_rate=2e-3, contrastive_weight=0.0))
    sampler = make_sampler()
    losses = [learner.learn(sampler.draw(step), step) for step in range(60)]
    assert losses[59]['d_loss'] < losses[0]['d_loss']
    assert losses[0]['residual_rms'] == 0
    assert losses[59]['residual_rms'] > 0.01


def test_the_sample_picture_shows_clean_prior_generated_and_real_side_by_side(tmp_path):
    train(make_sampler(), change(max_steps=1), tmp_path)
    picture = np.asarray(Image.open(tmp_path / 'samples' / 'step_000001.png')).astype(float)
    assert picture.shape == (32, 4 * 32 + 3 * 4)
    batch = make_sampler().draw(0)
    real = batch.real[0, 0].numpy()
    expected = np.clip((real - real.mean()) / (6 * real.std()) + 0.5, 0, 1) * 255
    np.testing.assert_allclose(picture[:, -32:], expected, atol=1)
    prior = np.clip((batch.prior[0, 0].numpy() - real.mean()) / (6 * real.std()) + 0.5, 0, 1) * 255
    np.testing.assert_allclose(picture[:, 36:68], prior, atol=1)
    clean = np.clip((batch.signal[0, 0].numpy() - real.mean()) / (6 * real.std()) + 0.5, 0, 1) * 255
    np.testing.assert_allclose(picture[:, :32], clean, atol=1)


def make_paper_settings(**more) -> TrainerSettings:
    return TrainerSettings(**{
        **PAPER, 'max_steps': 8, 'checkpoint_every': 4, 'learning_rate': 1e-3, 'contrastive_weight': 10.0,
        'statistics_weight': 0.0, 'temperature': 0.07, 'n_positions': 16, 'seed': 5, 'depth': 5, 'width': 2,
        'discriminator_width': 4, **more})


def test_the_published_network_is_trained_with_both_of_its_losses_and_keeps_what_it_learned(tmp_path):
    sampler = CropSampler(draw_simulated, draw_real, 32, 1, 1, n_symmetries=4)
    train(sampler, make_paper_settings(), tmp_path)
    rows = read_rows(tmp_path)
    assert len(rows) == 8
    for row in rows:
        assert float(row['contrastive_loss']) > 0
        assert float(row['d_loss']) > 0
        assert float(row['statistics_loss']) == float(row['gradient_penalty']) == 0
    loaded, state = load_generator(tmp_path).state_dict(), load_checkpoint(tmp_path / 'checkpoint.pt')['learner']
    assert all(torch.equal(value, state['generator'][name]) for name, value in loaded.items())


def test_the_published_training_begins_with_small_weights_and_an_output_between_black_and_white():
    torch.manual_seed(0)
    networks = build_networks(make_paper_settings(depth=6, width=32))
    weights, biases = ([one.detach().flatten() for network in networks for name, one in network.named_parameters()
                        if name.endswith(kind)] for kind in ('weight', 'bias'))
    with torch.no_grad():
        made = networks[0](torch.rand(1, 1, 64, 64) * 2 - 1)

    assert all(float(one.std()) == pytest.approx(0.02, rel=0.15) for one in weights if len(one) > 500)
    assert not torch.cat(biases).any()
    assert 0.05 < made.std() < 0.5          # a saturated tanh has 1


def test_the_published_rate_is_constant_for_a_quarter_and_then_falls_to_zero():
    settings = make_paper_settings(max_steps=100)
    assert [find_rate_factor(step, settings) for step in (0, 24, 25, 62, 99)] == pytest.approx(
        [1, 1, 1, 38 / 75, 1 / 75])
    assert find_rate_factor(10 ** 6, change(max_steps=4)) == 1


def test_uniform_sampling_needs_no_mask():
    learner = Learner(make_paper_settings(sampling='uniform'))
    batch = CropSampler(draw_simulated, draw_real, 32, 1, 1).draw(0)
    nothing = dataclasses.replace(batch, mask=torch.zeros_like(batch.mask))
    assert learner.learn(nothing, 0)['contrastive_loss'] > 0
    assert Learner(make_paper_settings()).learn(nothing, 0)['contrastive_loss'] == 0


def test_a_discriminator_that_sees_a_part_of_the_crop_learns_from_that_part():
    batch = make_sampler().draw(0)
    whole, part = (Learner(change(discriminator_crop=side)).learn(batch, 0) for side in (None, 16))
    assert whole['d_loss'] != part['d_loss']
    assert Learner(change(discriminator_crop=64)).learn(batch, 0)['d_loss'] == whole['d_loss']


def test_the_best_model_is_kept_and_training_ends_when_none_better_comes(tmp_path, caplog):
    distances = iter([9.0, 5.0, 3.0, 4.0, 3.5, 1.0])            # of the prior, then of the checkpoints
    with caplog.at_level(logging.INFO, logger='cryogem'):
        result = train(make_sampler(), change(max_steps=20, checkpoint_every=1, patience=2), tmp_path,
                       support=Support(judge=lambda translate: next(distances)))
    assert (result.step, result.best_step) == (4, 2)
    assert 'no better model in 2 checks: training ends, the model of step 2 is kept' in caplog.text
    assert [row['realism_model'] for row in read_rows(tmp_path)] == ['5.0', '3.0', '4.0', '3.5']
    description = read_card(tmp_path)['description']
    assert (description['steps'], description['realism']) == (2, {'model': 3.0, 'prior': 9.0})
    assert train(make_sampler(), change(max_steps=20, checkpoint_every=1, patience=2), tmp_path, resume=True,
                 support=Support(judge=lambda translate: 0.0)).step == 4


def test_the_statistics_are_drawn_towards_those_of_the_real_crops():
    wanted = make_sampler()
    goal = StatisticsGoal(*(measure_statistics(torch.cat([getattr(wanted.draw(step), name) for step in range(40)]))
                            for name in ('real', 'prior')))
    settings = change(learning_rate=2e-3, contrastive_weight=0.0, adversarial_weight=0.0, n_levels=3)
    learner = Learner(settings, None, goal)
    sampler = make_sampler()
    losses = [learner.learn(sampler.draw(step), step)['statistics_loss'] for step in range(60)]
    assert np.mean(losses[-15:]) < 0.5 * np.mean(losses[:15])
    assert learner.learn(sampler.draw(60), 60)['d_loss'] == 0


def test_hardware_without_bf16_trains_in_float32_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr('cryogem.translation.learner.has_fast_bf16', lambda device: False)
    with caplog.at_level(logging.INFO, logger='cryogem'):
        losses = Learner(make_paper_settings(mixed_precision=True)).learn(
            CropSampler(draw_simulated, draw_real, 32, 1, 1).draw(0), 0)
    assert 'cpu has no fast bf16; training in float32' in caplog.text
    assert np.isfinite(list(losses.values())).all()


def test_the_layout_of_kernels_in_float32_changes_the_speed_of_a_step_alone():
    learner, channels_last = (Learner(make_paper_settings(width=4)) for _ in range(2))
    for name in ('generator', 'discriminator'):
        kernels = [one for one in getattr(learner, f'_{name}').parameters() if one.ndim == 4]
        assert all(one.is_contiguous() for one in kernels)
        use_channels_last(getattr(channels_last, f'_{name}'))
    sampler = CropSampler(draw_simulated, draw_real, 32, 1, 1)
    for step in range(3):
        expected = channels_last.learn(sampler.draw(step), step)
        assert learner.learn(sampler.draw(step), step) == pytest.approx(expected, rel=1e-3)


def test_fewer_products_change_the_speed_of_a_step_alone(monkeypatch):
    plain, fewer = (Learner(make_paper_settings(width=4)) for _ in range(2))
    sampler = CropSampler(draw_simulated, draw_real, 32, 1, 1)
    for step in range(3):
        expected = plain.learn(sampler.draw(step), step)
        with monkeypatch.context() as patched:
            patched.setattr('cryogem.translation.minimal.MinimalConv2d.takes_fewer', lambda *_: True)
            found = fewer.learn(sampler.draw(step), step)
        assert found == pytest.approx(expected, rel=1e-3)
