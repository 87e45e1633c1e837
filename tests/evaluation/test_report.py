"""The report: one page without other files, best and worst marked, what is absent said, warnings and verdict."""

import csv
import json
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from cryogem.evaluation.classifier import TwoSampleTest
from cryogem.evaluation.comparison import Comparison
from cryogem.evaluation.report import HIGH, LOW, Cell, Picture, Report, Row, format_markdown, write_report
from cryogem.evaluation.rows import list_realism, list_tests
from cryogem.evaluation.signal import Signal
from cryogem.evaluation.suspicion import Suspicion
from cryogem.evaluation.verdict import describe_realism, find_warnings


@pytest.fixture
def report():
    rows = (
        Row('Group', 'distance', {'real': Cell('0', 0.0), 'a': Cell('1.5 <b>', 1.5), 'b': Cell('3', 3.0)}, LOW),
        Row('Group', 'score', {'a': Cell('0.5', 0.5), 'b': Cell('0.9', 0.9)}, HIGH, 'a remark'),
        Row('Group', 'absent', note='not installed'),
        Row('Other', 'equal', {'a': Cell('1', 1.0), 'b': Cell('1', 1.0)}, LOW))
    return Report(
        'Title & more', {'real': 'halves', 'a': 'one', 'b': 'other'}, ('a', 'b'), rows, ('It is good.',),
        ('It is worse than its prior.',), {'a': (Suspicion('m_3', 'contrast', 'its contrast is inverted'),)},
        (Picture('one.png', 'A picture'),), ('Measured so.',), {'n_real': 3})


@pytest.fixture
def folder(report, tmp_path):
    Image.fromarray(np.full((20, 30, 3), (200, 30, 40), np.uint8)).save(tmp_path / 'one.png')
    write_report(tmp_path, report)
    return tmp_path


class Page(HTMLParser):
    """Collects links to other files, classes of cells and all text."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.marks, self.words, self._mark = [], {}, [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.sources += [values[key] for key in ('src', 'href') if key in values]
        self._mark = values.get('class') if tag == 'td' else None

    def handle_data(self, data):
        self.words.append(data)
        if self._mark and data.strip():
            self.marks.setdefault(self._mark, []).append(data)


def test_the_page_needs_no_other_file(folder):
    page = Page((folder / 'report.html').read_text())

    assert len(page.sources) == 1
    assert page.sources[0].startswith('data:image/png;base64,')
    assert 'http' not in (folder / 'report.html').read_text()


def test_the_page_says_verdict_warning_and_which_micrograph_is_wrong(folder):
    text = ' '.join(Page((folder / 'report.html').read_text()).words)

    for words in ('Title & more', 'It is good.', 'It is worse than its prior.', 'm_3', 'its contrast is inverted',
                  'not installed', 'Measured so.', 'a remark', '1.5 <b>'):
        assert words in text


def test_best_and_worst_are_marked_among_the_judged_columns(folder):
    marks = Page((folder / 'report.html').read_text()).marks

    assert marks['best'] == ['1.5 <b>', '0.9']
    assert marks['worst'] == ['3', '0.5']


def test_the_table_is_there_as_csv_markdown_and_numbers(folder, report):
    with (folder / 'table.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['measure'] for row in rows] == ['distance', 'score', 'absent', 'equal']
    assert rows[1]['b'] == '0.9'
    assert rows[2]['note'] == 'not installed'
    assert '| score | ' in format_markdown(report)
    assert '**0.9**' in format_markdown(report)
    numbers = json.loads((folder / 'report.json').read_text())
    assert numbers['n_real'] == 3
    assert numbers['verdict'] == ['It is good.']
    assert numbers['suspicious']['a'][0]['name'] == 'm_3'


def test_a_browser_opens_it(folder):
    browser = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if browser is None:
        pytest.skip('no Chromium is installed; make test-all brings it')
    shot = folder / 'page.png'
    done = subprocess.run([browser, '--headless', '--no-sandbox', '--disable-gpu', f'--screenshot={shot}',
                           '--window-size=900,900', f'--user-data-dir={folder / "profile"}',
                           (folder / 'report.html').as_uri()], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    page = np.asarray(Image.open(shot).convert('RGB')).astype(int)

    assert (page.max(axis=2) < 80).sum() > 500                                      # text
    is_picture = (np.abs(page - (200, 30, 40)) < 12).all(axis=2)
    assert is_picture.sum() >= 20 * 30 * 0.8                                        # the embedded picture, px for px
    assert (np.abs(page - (214, 240, 214)) < 3).all(axis=2).sum() > 100             # a best cell


def comparison(distance, floor=1.0, spread=0.1):
    return Comparison(distance, spread, floor, 0.1, 5)


def signal(level):
    return Signal(np.full(128, level), np.ones(128), np.full(3, level), 1.0)


def test_a_set_worse_than_its_prior_is_warned_of_and_a_better_one_is_not():
    found = {'set': {'frechet_topaz': comparison(2.0)}, 'measured': {'frechet_topaz': comparison(1.2)}}

    assert find_warnings(['set'], found, {}, 0, 10) == [
        'set is worse than its own prior, the measured noise: distance 2 against 1.2; use the measured noise in its '
        'place']
    found['set'] = {'frechet_topaz': comparison(1.25)}
    assert find_warnings(['set'], found, {}, 0, 10) == []


def test_lost_signal_and_real_micrographs_that_were_calibrated_on_are_warned_of():
    signals = {'set': signal(0.3), 'measured': signal(0.5)}
    words = find_warnings(['set'], {}, signals, 2, 3)

    assert words[0].startswith('set has lost signal: its correlation with the clean twin is 0.30, that of the measured '
                               'noise 0.50')
    assert words[1].startswith('2 of the 3 real micrographs were also calibrated on')
    assert words[2].startswith('3 real micrographs are few')


def test_the_verdict_is_in_words():
    test = TwoSampleTest(0.8, 0.7, 0.9, (5, 5), 60)

    assert describe_realism('set', {'frechet_topaz': comparison(1.3)}, test) == (
        "set: the generated micrographs are 1.3 times the real-to-real distance by Topaz's features (5 against 5 "
        'micrographs); a classifier tells them from real ones (AUC 0.80, 0.70 to 0.90).')
    assert 'by its radial power' in describe_realism('set', {'power': comparison(1.3)}, None)
    assert 'too few real micrographs' in describe_realism('set', {}, None)


def test_splits_that_differ_by_rounding_have_no_spread():
    spreads = {'real': 2.8e-17, 'set': 0.01}
    row = list_realism({arm: {'power': comparison(0.22, spread=one)} for arm, one in spreads.items()}, ())[0]

    assert [row.cells[arm].text.split(' (')[0] for arm in spreads] == ['0.22 ± 0', '0.22 ± 0.01']


def test_what_is_absent_has_a_row_that_says_so():
    notes = {row.label: row.note for row in list_realism({'real': {}, 'set': {}}, ())}

    assert 'topaz-em is not installed' in notes['Topaz features']
    assert 'there is no FID' in notes['Inception features: FID']
    assert 'not installed' in notes['EfficientNet-Lite0 features, a substitute of the FID']
    assert 'no floor' in notes['radial power, rms of log']
    assert 'not measured' in list_tests({})[0].note


def test_only_inception_makes_a_distance_that_is_called_fid():
    rows = list_realism({'a': {'frechet_efficientnet': comparison(1), 'frechet_topaz': comparison(1)}},
                        ('topaz', 'efficientnet'))

    assert [row.label for row in rows if 'FID' in row.label and row.cells] == [
        'Fréchet distance, EfficientNet-Lite0 features, a substitute of the FID']
