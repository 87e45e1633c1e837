"""`cryogem train`: learn what the measured noise cannot say about the real micrographs."""

import logging
from pathlib import Path

from cryogem.commands.bias_guard import measure_bias
from cryogem.commands.hallucination import judge_hallucinations, list_failures
from cryogem.commands.inputs import choose_device
from cryogem.commands.judging import measure_gates
from cryogem.commands.settling import settle_signal
from cryogem.commands.training_plan import TrainingPlan, plan_training
from cryogem.config import TrainConfig, describe_run
from cryogem.dataset import layout
from cryogem.dataset.writer import check_output
from cryogem.io.files import make_folder, write_json
from cryogem.translation.engine import Engine
from cryogem.translation.events import open_events
from cryogem.translation.hardware import keep_freed_memory
from cryogem.translation.model import describe_model, load_generator, read_card
from cryogem.translation.trainer import Support, train
from cryogem.translation.translate import build_translator

logger = logging.getLogger(__name__)

# When a training is continued.
_MAY_CHANGE = ('max_steps', 'max_minutes', 'checkpoint_every', 'patience', 'tensorboard', 'device', 'devices',
               'num_nodes')
_GATE_CROPS = 48                            # of each kind, on which the gates are measured


def run(config: TrainConfig, output: Path) -> None:
    """Train a model of the real micrographs on the simulated ones."""
    device = choose_device(config.device)
    description = describe_run('train', config)
    check_output(output, description, config.continue_, _MAY_CHANGE)
    engine = Engine(device, config.devices, config.num_nodes)
    engine.launch()
    keep_freed_memory()
    plan = plan_training(config)
    watch = open_events(output / 'events') if config.tensorboard and engine.is_first else None
    if engine.is_first:
        make_folder(output)
        write_json(output / layout.CONFIG, description)
        write_json(output / layout.CALIBRATION, plan.dataset.calibration.to_json())
    engine.wait()
    held_out = plan.build_judge(config.seed) if plan.split else None
    support = Support(held_out.judge if held_out else None, plan.measure_textures(), watch, config.workers)
    result = train(plan.build_sampler(engine), plan.settings, output,
                   config.continue_, plan.describe(engine), support, engine)
    if engine.is_first and held_out:
        settle_signal(plan, output, held_out)
        _write_gates(plan, output)
    if config.bias_guard:
        shown = measure_bias(plan, output, engine)
        if engine.is_first:
            describe_model(output, {**read_card(output)['description'], 'bias_guard': shown})
    logger.info('model of step %d, after %d steps and %.0f s: %s', result.best_step, result.step, result.seconds,
                output)


def _write_gates(plan: TrainingPlan, output: Path) -> None:
    """Judge the model that was kept on simulations of its own, and write what it passed into its card."""
    card = read_card(output)
    translate = build_translator(load_generator(output), card['description'])
    # simulations and windows that took no part in choosing the model
    gates = measure_gates(plan.build_judge(plan.config.seed + 1, _GATE_CROPS), plan.real, translate, plan.config.seed)
    gates['hallucinations'] = judge_hallucinations(plan, translate, plan.config.seed + 1)
    describe_model(output, {**card['description'], 'gates': gates})
    for sentence in list_failures(gates):
        logger.warning('%s', sentence)
    realism = gates['realism']
    if not realism['passed']:
        logger.warning('the model is not better than its prior on held-out crops (distance %.4g, prior %.4g): generate '
                       'will use the prior unless told --force', realism['model'], realism['prior'])
