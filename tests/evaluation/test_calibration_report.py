"""The page of a calibration is complete by itself, and says what is odd."""

import base64
import dataclasses
import re

import numpy as np
import pytest
from PIL import Image

from cryogem.dataset import layout
from cryogem.evaluation.calibration_report import (
    describe_misfits,
    format_page,
    list_numbers,
    write_calibration_report,
)
from cryogem.imaging.measurement import inspect
from cryogem.imaging.picks import PickCheck
from cryogem.imaging.signal_fit import SignalQuality
from cryogem.imaging.spectrum import N_SHELLS
from cryogem.specimen.ensemble import build_ensemble
from tests.imaging.synthetic import PIXEL_SIZE, make_micrographs
from tests.phantom import make_chiral_phantom


@pytest.fixture(scope='module')
def inspected():
    made = make_micrographs(build_ensemble([make_chiral_phantom().prepare(32, PIXEL_SIZE)], [1]), 3, 0.4)
    real = [one.real for one in made]
    dirty = real[1].image.copy()
    dirty[100:160, 100:170] += 600
    return inspect([real[0], dataclasses.replace(real[1], image=dirty), real[2]], PIXEL_SIZE, 90.0)


def test_the_report_is_a_page_with_its_pictures_inside(inspected, tmp_path):
    write_calibration_report(tmp_path, *inspected)

    page = (tmp_path / layout.CALIBRATION_REPORT).read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 2
    assert all(base64.b64decode(one).startswith(b'\x89PNG') for one in pictures)
    assert not re.search(r'(src|href)="(?!data:)', page)
    for name in (layout.CALIBRATION_CURVES, layout.CALIBRATION_SHEET):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 300


def test_the_mask_of_a_micrograph_is_white_on_its_dirt(inspected, tmp_path):
    write_calibration_report(tmp_path, *inspected)

    calibration, seen = inspected
    masks = [np.asarray(Image.open(layout.outlier_path(tmp_path, one.name))) for one in seen]
    assert masks[1].shape == seen[1].contrast.shape
    assert masks[1][110:150, 110:160].mean() > 250
    assert (masks[1] > 0).mean() < 0.15
    assert (masks[0] > 0).mean() < 0.01
    assert calibration.micrographs[1].outlier_share == pytest.approx((masks[1] > 0).mean())


def test_without_micrographs_at_hand_the_report_has_numbers_and_curves(inspected, tmp_path):
    write_calibration_report(tmp_path, inspected[0], [])

    assert not (tmp_path / layout.CALIBRATION_SHEET).exists()
    assert (tmp_path / layout.CALIBRATION_CURVES).exists()
    assert 'particle diameter' in (tmp_path / layout.CALIBRATION_REPORT).read_text()


def test_the_page_says_what_is_odd_and_how_well_the_signal_is_known(inspected):
    calibration, _ = inspected
    odd = dataclasses.replace(calibration.micrographs[0], weight=0.2, remarks=('its signal power is <0.1 of others',))
    quality = SignalQuality(0.01, 0.5, 0.1, 0.2, 0.97, 120.0, 30.0)
    calibration = dataclasses.replace(calibration, micrographs=(odd, *calibration.micrographs[1:]), signal_scale=0.4,
                                      signal=quality)

    page = format_page(calibration, [])
    assert f'{odd.name} counts less (weight 0.20): its signal power is &lt;0.1 of others' in page
    numbers = dict(list_numbers(calibration))
    assert numbers['signal amplitude'].startswith('0.4 ± 0.01')
    assert numbers['scatter of the picks'] == '2.0 Å on each axis'
    assert numbers['B-factor against the map'] == '120 ± 30 Å²'


def test_the_page_says_by_how_much_picks_are_shifted(inspected):
    calibration, _ = inspected
    check = PickCheck((-1.0,) * 8 + (0.0,) * 12, 1e3, (-3.0, 4.0), 0.2)

    page = format_page(dataclasses.replace(calibration, picks=check), [])
    # 3 and 4 px of 4 Å
    assert 'against the particles, by 20.0 Å on average: these lie +16.0 Å in x and -12.0 Å in y from them' in page


def test_the_page_says_by_how_much_a_wrong_map_fails(inspected):
    calibration, _ = inspected
    right, wrong = (SignalQuality(0.01, 0.5, misfit, misfit, correlation, 0.0, 30.0)
                    for misfit, correlation in ((0.1, 0.97), (0.6, 0.4)))
    pages = [format_page(dataclasses.replace(calibration, signal_scale=0.4, signal=one), []) for one in (right, wrong)]

    said = 'The map explains the particles poorly: 60 % of the power at the picks differs'
    assert [said in page for page in pages] == [False, True]
    assert 'correlate with 0.40' in pages[1]
    assert describe_misfits(right) == []


def test_signal_over_noise_is_said_at_resolutions_that_the_pixels_hold(inspected):
    calibration, _ = inspected
    snr = tuple(np.linspace(1, 0, N_SHELLS))
    quality = SignalQuality(0.01, 0.5, 0.1, 0.2, 0.97, 0.0, 30.0, snr)

    ratios = dict(list_numbers(dataclasses.replace(calibration, signal_scale=0.4, signal=quality)))[
        'signal over noise, on particles']
    # a ratio that falls evenly to nothing at the Nyquist frequency, which 8 Å is with pixels of 4 Å
    assert ratios == '0.8 at 40 Å, 0.6 at 20 Å, 0.33 at 12 Å'
