"""`simulate --ablation`: half of the real micrographs calibrate, the other half judge what is made like them."""

import re

import numpy as np
import pytest

from cryogem.__main__ import main
from cryogem.commands.ablation import KINDS, ablate, list_halvings
from cryogem.errors import InputError
from cryogem.imaging.calibration import RealMicrograph
from tests.messages import is_one_sentence


def read_table(folder) -> dict[str, list[float]]:
    """Return the distances of each row of the page."""
    page = (folder / 'calibration' / 'report.html').read_text(encoding='utf-8')
    table = page[page.index('What each part is worth'):]
    rows = re.findall(r'<tr><td>([a-zA-Z ]+)</td>(.*?)</tr>', table)
    return {name: [float(cell) for cell in re.findall(r'<td>([\d.e-]+)', cells)] for name, cells in rows}


def test_a_small_set_is_halved_in_all_ways_and_nobody_judges_what_it_calibrated():
    halvings = list(list_halvings(4))

    assert len(halvings) == 6
    assert all(set(known) | set(judging) == set(range(4)) and not set(known) & set(judging)
               for known, judging in halvings)
    assert {one for _, judging in halvings for one in judging} == set(range(4))


def test_a_large_set_is_halved_once_and_the_other_way_round():
    assert list(list_halvings(7)) == [((0, 2, 4, 6), (1, 3, 5)), ((1, 3, 5), (0, 2, 4, 6))]


@pytest.mark.parametrize(('count', 'said'), [(1, 'two micrographs at least'), (2, 'no picks')])
def test_what_cannot_be_halved_is_refused_before_any_work(count, said):
    rng = np.random.default_rng(0)
    picks = [np.array([[50.0, 50.0]]), np.empty((0, 2))]
    real = [RealMicrograph(f'real_{i}', rng.normal(0, 1, (100, 100)).astype(np.float32), picks[i])
            for i in range(count)]

    with pytest.raises(InputError, match=said) as caught:
        ablate(real, None, None, 20.0)
    assert is_one_sentence(caught.value)


@pytest.mark.slow
def test_the_page_shows_what_each_part_is_worth(real_set, tmp_path, monkeypatch):
    monkeypatch.setattr('cryogem.commands.simulate.find_topaz_weights', lambda: None)
    assert main(real_set.simulate(tmp_path / 'out', '--n-micrographs', '1', '--ablation')) == 0

    table = read_table(tmp_path / 'out')
    assert list(table) == [*KINDS, 'real']
    assert all(np.isfinite(cells).all() and len(cells) == 5 for cells in table.values())
    # with one micrograph in a half, the rings of the set are nearly those of its own label: the spectrum is as near
    assert table['without B'][0] == pytest.approx(table['measured'][0], rel=0.1)
    assert all(table[kind] != table['measured'] for kind in KINDS[1:])
