"""The published network made ready for use gives what the original gives."""

import pytest
import torch

from cryogem.translation.hardware import has_bf16_vectors, has_fast_bf16, keep_freed_memory
from cryogem.translation.lean import LeanPaperGenerator
from cryogem.translation.paper import PaperGenerator


def make_generator(width: int = 8) -> PaperGenerator:
    torch.manual_seed(0)
    return PaperGenerator(6, width).eval()


@pytest.mark.parametrize('shape', [(128, 128), (64, 192)])
def test_in_float32_the_lean_network_equals_the_original(shape):
    generator, image = make_generator(), torch.rand(1, 1, *shape) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(LeanPaperGenerator(generator, False)(image), generator(image), rtol=1e-4, atol=1e-5)


def test_in_float32_the_lean_network_gives_the_golden_output(golden, golden_input):
    generator = PaperGenerator(depth=8, width=2)
    generator.load_state_dict(golden.read_state('generator/state/'))
    output = LeanPaperGenerator(generator, False)(golden_input)
    torch.testing.assert_close(output, golden.read('generator/output'), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not has_fast_bf16('cpu'), reason='this CPU has no fast bf16')
@pytest.mark.parametrize('width', [8, 16])  # in vectors, where the processor has them, are multiples of 16
@pytest.mark.parametrize('shape', [(64, 64), (128, 128), (64, 192), (320, 64)])
def test_in_bf16_the_lean_network_differs_by_the_rounding_of_its_numbers(width, shape):
    generator, image = make_generator(width), torch.rand(1, 1, *shape) * 2 - 1
    with torch.no_grad():
        expected, found = generator(image), LeanPaperGenerator(generator, True)(image)
    assert found.dtype == torch.float32
    assert float((found - expected).square().mean().sqrt() / expected.std()) < 0.015


@pytest.mark.parametrize(('has_vectors', 'width'), [(False, 16), (True, 8)])
def test_where_vectors_do_not_fit_torch_computes(monkeypatch, has_vectors, width):
    monkeypatch.setattr('cryogem.translation.lean.has_bf16_vectors', lambda device: has_vectors)
    assert LeanPaperGenerator(make_generator(width), True).in_vectors is None


def test_a_cpu_with_tiles_of_bf16_is_left_to_torch(monkeypatch):
    monkeypatch.setattr('torch.cpu._is_amx_tile_supported', lambda: True)
    assert not has_bf16_vectors('cpu')


def test_no_other_device_computes_in_vectors():
    assert not has_bf16_vectors('cuda')


@pytest.mark.skipif(not has_bf16_vectors('cpu'), reason='this CPU has no vectors of bf16')
def test_a_numba_that_is_too_old_for_vectors_is_told_of(monkeypatch, caplog):
    monkeypatch.setattr('llvmlite.binding.llvm_version_info', (15, 0, 7))
    with caplog.at_level('INFO', logger='cryogem'):
        assert not has_bf16_vectors('cpu')
    assert 'LLVM 15.0.7, needed is 20' in caplog.text


def test_making_a_network_lean_leaves_the_original_as_it_was():
    generator = make_generator()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    LeanPaperGenerator(generator)(torch.zeros(1, 1, 64, 64))
    assert all(torch.equal(value, before[name]) and value.dtype == torch.float32
               for name, value in generator.state_dict().items())
    assert all(parameter.requires_grad for parameter in generator.parameters())


def test_hardware_that_lacks_bf16_is_told_of_and_float32_is_used(monkeypatch, caplog):
    monkeypatch.setattr('cryogem.translation.lean.has_fast_bf16', lambda device: False)
    with caplog.at_level('INFO', logger='cryogem'):
        lean = LeanPaperGenerator(make_generator())
    assert 'runs in float32' in caplog.text
    assert not lean.is_half


def test_another_c_library_than_glibc_is_left_alone(monkeypatch, caplog):
    monkeypatch.setattr('platform.libc_ver', lambda: ('musl', '1.2'))
    with caplog.at_level('INFO', logger='cryogem'):
        assert not keep_freed_memory()
    assert 'not glibc' in caplog.text
