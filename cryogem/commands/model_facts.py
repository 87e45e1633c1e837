"""What the card of a trained model says of its gates and its guard against bias, as sentences for a report."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cryogem.commands.evaluation_inputs import GeneratedSet
from cryogem.config import NOISE_MODELS, GenerateConfig
from cryogem.translation.model import passes_gate, read_card


def list_model_facts(sets: Sequence[GeneratedSet]) -> tuple[str, ...]:
    """Return sentences on the models of generated sets; noise models, and folders that are gone, have none."""
    models = dict.fromkeys(one.config.model for one in sets if one.config.model not in NOISE_MODELS)
    return tuple(f'Model {Path(model).resolve().name}: {sentence}.' for model in models if Path(model).is_dir()
                 for sentence in describe_card(read_card(Path(model)).get('description', {})))


def name_maker(config: GenerateConfig) -> str:
    """Return what made a set: its model, or the prior of that model where generate took it in its place."""
    model = Path(config.model)
    if config.force or not model.is_dir() or passes_gate(read_card(model)):
        return f'model {model}'
    return f'the prior of model {model}, which was found no better than it'


def describe_card(about: dict[str, Any]) -> Iterator[str]:
    """Yield sentences on what a training found out about its model, for the description of a card."""
    gates = about.get('gates', {})
    if 'realism' in gates:
        one = gates['realism']
        yield (f'distance to held-out real crops {one["model"]:.3g}, of its prior {one["prior"]:.3g}, between real '
               f'ones {one["floor"]:.3g}')
    if 'signal' in gates:
        yield (f'its correlation with the clean picture lies at most {max(gates["signal"]["largest_loss"], 0):.3f} '
               'below that of the prior in any band')
    picks = gates.get('hallucinations', {})
    if 'model' in picks and 'prior' in picks:
        yield (f'{picks["model"]["share"]:.1%} of the picks of {picks["picker"]} are away from every particle, on its '
               f'prior {picks["prior"]["share"]:.1%}')
    elif 'note' in picks:
        yield f'picks away from every particle {picks["note"]}'
    if 'bias_guard' in about:
        halves, counts = about['bias_guard']['halves'], about['bias_guard']['particles_on_empty_crops']
        yield (f'models of two halves of the real micrographs differ by {halves["disagreement"]:.2f} times what they '
               'change')
        yield (f'blobs like particles on a crop without any: {counts["prior"]:.2f} on the prior, {counts["model"]:.2f} '
               f'from the model, {counts["decoy"]:.2f} from a decoy that was trained without particles; on crops with '
               f'particles {counts["placed_on_full_crops"]:.2f}')
