"""The same commands on a GPU: the numbers of a CPU, up to rounding."""

import mrcfile
import numpy as np
import pytest
import torch

from cryogem.__main__ import main

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='torch sees no GPU')


def test_a_simulation_on_a_gpu_has_the_pixels_of_one_on_a_cpu(real_set, simulated, tmp_path):
    assert main(real_set.simulate(tmp_path / 'out', '--n-micrographs', '3', '--particles', 'both', '--seed', '7',
                                  '--device', 'cuda')) == 0

    for folder in ('micrographs', 'clean'):
        for path in sorted((simulated / folder).glob('*.mrc')):
            expected, found = mrcfile.read(path), mrcfile.read(tmp_path / 'out' / folder / path.name)
            assert np.abs(found - expected).max() < 1e-3 * expected.std()
    assert (tmp_path / 'out' / 'particles.star').read_text() == (simulated / 'particles.star').read_text()


def test_a_model_trained_on_a_gpu_generates_on_both(real_set, simulated, tmp_path):
    model = tmp_path / 'model'
    assert main(['train', '--dataset', str(simulated), '--micrographs', real_set.micrographs, '--max-steps', '3',
                 '--crop-size', '48', '--batch-size', '2', '--output', str(model), '--device', 'cuda']) == 0
    for device in ('cuda', 'cpu'):
        assert main(['generate', '--model', str(model), '--dataset', str(simulated), '--n-micrographs', '1',
                     '--output', str(tmp_path / device), '--device', device]) == 0

    expected, found = (mrcfile.read(tmp_path / device / 'micrographs' / 'generated_00001.mrc')
                       for device in ('cpu', 'cuda'))
    # convolutions on a GPU may round to ten bits
    assert np.abs(found - expected).max() < 2e-2 * expected.std()
