"""Fixtures of this room: a small specimen, and micrographs of it."""

import dataclasses

import pytest

from cryogem.imaging.exposure import draw_record
from cryogem.records import Micrograph
from cryogem.specimen.ensemble import Ensemble, build_ensemble
from tests.imaging.synthetic import (
    PIXEL_SIZE,
    SIGNAL_SCALE,
    MadeMicrograph,
    make_calibration,
    make_micrographs,
    make_protocol,
)
from tests.phantom import make_chiral_phantom


@pytest.fixture(scope='session')
def ensemble() -> Ensemble:
    return build_ensemble([make_chiral_phantom().prepare(32, PIXEL_SIZE)], [1])


@pytest.fixture(scope='session')
def made(ensemble) -> list[MadeMicrograph]:
    """Eight micrographs; where particles are, the signal has about a third of the noise's sd."""
    return make_micrographs(ensemble, 8, SIGNAL_SCALE)


@pytest.fixture
def record(ensemble) -> Micrograph:
    """One record with particles, all heights 0."""
    record = draw_record(make_protocol(), make_calibration(1.0), ensemble, 0)
    return dataclasses.replace(
        record, particles=tuple(dataclasses.replace(one, height=0.0) for one in record.particles))
