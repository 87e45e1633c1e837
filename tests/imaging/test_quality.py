"""Odd micrographs of a set are named with what is odd, and count less; the others are left in peace."""

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import uniform_filter1d

from cryogem.imaging.measurement import calibrate
from cryogem.imaging.quality import weigh_micrographs
from tests.imaging.synthetic import GREY_MEAN, GREY_SD, PIXEL_SIZE

DIAMETER = 90.0                             # Å


def spoil(one, change):
    """Return a real micrograph with its contrast changed."""
    contrast = change((one.image - GREY_MEAN) / GREY_SD)
    return dataclasses.replace(one, image=(contrast * GREY_SD + GREY_MEAN).astype(np.float32))


def drift(contrast):
    return 2 * uniform_filter1d(contrast, 9, axis=1)


def cover_with_ice(contrast):
    rng = np.random.default_rng(0)
    return 0.1 * contrast + rng.normal(0, 1, contrast.shape)


def cover_with_carbon(contrast):
    changed = contrast.copy()
    changed[:, :120] = 2.5 * changed[:, :120] - 2
    return changed


@pytest.mark.parametrize(('change', 'said'), [(drift, 'high resolution'), (cover_with_ice, 'signal power'),
                                              (cover_with_carbon, 'carbon, crystals or dirt')])
def test_an_odd_micrograph_counts_less_and_is_named(made, caplog, change, said):
    real = [one.real for one in made]
    real[2] = spoil(real[2], change)

    found = calibrate(real, PIXEL_SIZE, DIAMETER).micrographs

    assert found[2].weight < 0.7
    assert any(said in remark for remark in found[2].remarks)
    assert all(one.weight == 1 and not one.remarks for i, one in enumerate(found) if i != 2)
    assert f'micrograph {found[2].name} counts less' in caplog.text


def test_a_set_of_equals_has_no_odd_one(made):
    assert all(one.weight == 1 for one in calibrate([one.real for one in made], PIXEL_SIZE, DIAMETER).micrographs)


def test_of_three_micrographs_nobody_can_say_which_is_odd(made):
    real = [one.real for one in made[:3]]
    real[1] = spoil(real[1], drift)

    measured = calibrate(real, PIXEL_SIZE, DIAMETER).micrographs
    assert [one.weight for one in weigh_micrographs(measured)] == [1.0, 1.0, 1.0]
