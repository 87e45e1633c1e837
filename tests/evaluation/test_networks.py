"""Optional networks: what is absent is refused in words, what is there gives features."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch

from cryogem.errors import InputError
from cryogem.evaluation.networks import has_efficientnet, load_efficientnet, load_inception


def test_efficientnet_gives_features_that_do_not_depend_on_the_other_crops():
    if not has_efficientnet():
        pytest.skip('efficientnet-lite-pytorch is not installed')
    extract = load_efficientnet()
    crops = np.random.default_rng(0).standard_normal((3, 96, 96)).astype(np.float32)
    features = extract(crops)

    assert features.shape == (3, 1280)
    np.testing.assert_allclose(extract(crops[1:2]), features[1:2], atol=1e-4)
    assert np.abs(features[0] - features[1]).max() > 1e-3


def test_inception_weights_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(InputError, match='is no file; give weights-inception-2015-12-05-6726825d.pth'):
        load_inception(str(tmp_path / 'none.pth'))


def test_inception_needs_its_package(tmp_path, monkeypatch):
    (tmp_path / 'weights.pth').touch()
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)

    with pytest.raises(InputError, match='need the package torch-fidelity, which is not installed'):
        load_inception(str(tmp_path / 'weights.pth'))


IMPORT = """
import sys
sys.path.insert(0, {folder!r})
from cryogem.evaluation.torchvision_operators import declare_torchvision_operators
declare_torchvision_operators()
import torchvision
print(torchvision.found)
"""
# what torchvision's _meta_registrations does when it is imported
TORCHVISION = """
import torch
@torch.library.register_fake('torchvision::nms')
def nms(dets, scores, iou_threshold):
    return dets
found = True
"""


@pytest.mark.skipif(torch.version.cuda is not None, reason='this build of torch has CUDA')
@pytest.mark.parametrize('is_declared', [True, False])
def test_torchvision_can_be_imported_once_its_operators_are_declared(is_declared, tmp_path):
    (tmp_path / 'torchvision.py').write_text(TORCHVISION)
    program = IMPORT.format(folder=str(tmp_path))
    if not is_declared:
        program = program.replace('declare_torchvision_operators()\n', '')
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=600, check=False)

    assert (done.returncode == 0) == is_declared
    assert is_declared or 'torchvision::nms' in done.stderr
