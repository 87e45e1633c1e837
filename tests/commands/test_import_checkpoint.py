import json

import torch

from cryogem.commands.import_checkpoint import run
from cryogem.config import ImportCheckpointConfig
from cryogem.translation import load_generator
from cryogem.translation.paper import PaperGenerator


def test_an_imported_checkpoint_becomes_a_model_folder_that_loads(tmp_path):
    torch.save(PaperGenerator(5, 2).state_dict(), tmp_path / 'latest_net_G.pth')
    output_dir = tmp_path / 'model'
    run(ImportCheckpointConfig(output=str(output_dir), checkpoint=str(tmp_path / 'latest_net_G.pth')), output_dir)
    assert sorted(one.name for one in output_dir.iterdir()) == ['card.json', 'config.json', 'weights.safetensors']
    assert json.loads((output_dir / 'config.json').read_text())['command'] == 'import-checkpoint'
    assert load_generator(output_dir).sizes == {'depth': 5, 'width': 2}
