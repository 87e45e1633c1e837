import pytest
import torch

from cryogem.errors import InputError, OutputError
from cryogem.translation import load_generator
from cryogem.translation.paper import PaperGenerator
from cryogem.translation.published import import_published_checkpoint


def save_state(path, **changes):
    """Save a small network of the published kind, with `changes` (None removes a key, others replace it)."""
    state = {key: value.contiguous() for key, value in PaperGenerator(5, 2).state_dict().items()}
    state.update({key.replace('__', '.'): value for key, value in changes.items()})
    torch.save({key: value for key, value in state.items() if value is not None}, path)
    return path


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_an_imported_checkpoint_gives_the_published_output(tmp_path, golden, golden_input, prefix):
    state = golden.read_state('generator/state/')
    torch.save({prefix + key: value for key, value in state.items()}, tmp_path / 'latest_net_G.pth')
    imported = import_published_checkpoint(tmp_path / 'latest_net_G.pth', tmp_path / 'model')
    assert imported.sizes == {'depth': 8, 'width': 2}
    with torch.no_grad():
        output = load_generator(tmp_path / 'model')(golden_input)
    torch.testing.assert_close(output, golden.read('generator/output'), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('depth', 'width'), [(5, 2), (6, 1), (7, 3)])
def test_depth_and_width_are_inferred_from_the_shapes(tmp_path, depth, width):
    torch.save(PaperGenerator(depth, width).state_dict(), tmp_path / 'net.pth')
    assert import_published_checkpoint(tmp_path / 'net.pth', tmp_path / 'model').sizes == {
        'depth': depth, 'width': width}


@pytest.mark.parametrize(('changes', 'message'), [
    ({'model__down__0__weight': None}, r'it has no weights model\.down\.0\.weight'),
    ({'model__down__0__weight': 3}, r'it has no weights model\.down\.0\.weight'),
    ({'model__up__1__bias': None}, r'model\.up\.1\.bias is missing'),
    ({'model__up__9__bias': torch.zeros(1)}, r'model\.up\.9\.bias is unknown'),
    ({'model__down__0__weight': torch.zeros(2, 3, 4, 4)}, r'\(2, 3, 4, 4\), expected \(2, 1, 4, 4\)'),
    ({'model__up__1__bias': 1.0}, r'model\.up\.1\.bias has shape \(\), expected \(1,\)'),
    ({'model__up__1__bias': torch.tensor([torch.nan])}, 'no finite numbers'),
    ({'model__up__1__bias': torch.tensor([1])}, 'no finite numbers'),
])
def test_another_network_is_refused_with_what_is_wrong(tmp_path, changes, message):
    path = save_state(tmp_path / 'net.pth', **changes)
    with pytest.raises(InputError, match=f'no published CryoGEM generator.*{message}.*give the file latest_net_G'):
        import_published_checkpoint(path, tmp_path / 'model')
    assert not (tmp_path / 'model').exists()


def test_a_network_with_too_few_levels_is_refused(tmp_path):
    torch.save({'model.down.0.weight': torch.zeros(2, 1, 4, 4)}, tmp_path / 'net.pth')
    with pytest.raises(InputError, match='it has 1 levels, at least 5 are needed'):
        import_published_checkpoint(tmp_path / 'net.pth', tmp_path / 'model')


def test_a_text_file_and_a_missing_file_are_refused(tmp_path):
    (tmp_path / 'notes.pth').write_text('not weights')
    for name, message in (('notes.pth', 'is damaged or holds more than tensors'), ('none.pth', 'check the path')):
        with pytest.raises(InputError, match=message):
            import_published_checkpoint(tmp_path / name, tmp_path / 'model')


def test_an_existing_model_is_not_overwritten(tmp_path):
    path = save_state(tmp_path / 'net.pth')
    import_published_checkpoint(path, tmp_path / 'model')
    before = (tmp_path / 'model' / 'card.json').read_bytes()
    with pytest.raises(OutputError, match='holds a model already; choose another folder'):
        import_published_checkpoint(path, tmp_path / 'model')
    assert (tmp_path / 'model' / 'card.json').read_bytes() == before
