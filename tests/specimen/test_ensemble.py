"""Several maps in one box, drawn by their weights."""

import numpy as np
import pytest

from cryogem.errors import ConfigError
from cryogem.specimen.ensemble import build_ensemble
from tests.messages import is_one_sentence
from tests.phantom import make_chiral_phantom


def prepare(box_size: int, scale: float = 0.6):
    return make_chiral_phantom(scale).prepare(box_size, 4.0)


def test_maps_share_the_largest_box_and_the_largest_diameter():
    small, large = prepare(24, 0.5), prepare(32, 1.0)

    ensemble = build_ensemble([small, large], [1, 1])

    assert ensemble.box_size == 32
    assert [one.density.shape for one in ensemble.volumes] == [(32, 32, 32)] * 2
    assert ensemble.diameter == large.diameter > small.diameter
    assert len(ensemble.projectors) == 2


def test_conformers_are_drawn_by_their_weights():
    ensemble = build_ensemble([prepare(24)] * 3, [3, 0, 1])

    conformers = ensemble.draw_conformers(8000, np.random.default_rng(0))

    assert ensemble.shares == (0.75, 0, 0.25)
    np.testing.assert_allclose(np.bincount(conformers, minlength=3) / 8000, [0.75, 0, 0.25], atol=0.015)
    np.testing.assert_array_equal(conformers, ensemble.draw_conformers(8000, np.random.default_rng(0)))


@pytest.mark.parametrize('weights', [[1, -0.5], [0, 0]])
def test_weights_that_are_no_shares_are_refused(weights):
    with pytest.raises(ConfigError, match='weights') as caught:
        build_ensemble([prepare(24)] * 2, weights)
    assert is_one_sentence(caught.value)
