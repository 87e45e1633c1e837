"""Viewer of evaluate."""

from pathlib import Path

from cryogem_scipion.protocols import ProtCryogemEvaluate
from cryogem_scipion.viewers.base import CryogemViewer
from cryogem_scipion.viewers.views import TableView, moveLast, readSettings, readTable


class CryogemEvaluateViewer(CryogemViewer):
    """How much the generated micrographs are like the real ones."""

    _label = 'viewer evaluate'
    _targets = [ProtCryogemEvaluate]
    _buttons = {
        'report': ('Report: page in the browser', 'All figures, pictures and the verdict on one page.'),
        'table': ('Tables', 'The figures behind the report, a window for each table.'),
        'spectra': ('Spectra', 'Power spectra of real and generated micrographs.'),
        'gallery': ('Real and generated at equal grey', 'Real micrographs above, generated ones below.'),
        'pictures': ('All other pictures', 'What else was drawn for the report.'),
    }

    def _getFolder(self) -> Path:
        return Path(self.protocol.getReportFolder())

    def _listPictures(self) -> list[Path]:
        return sorted(self._getFolder().glob('**/*.png'))

    def _viewReport(self) -> list:
        return self._page(self._getFolder() / 'report.html', 'The page of the report')

    def _viewTable(self) -> list:
        tables = sorted(self._getFolder().glob('*.csv'))
        if not tables:
            return self._table(self._getFolder() / 'report.json', 'Figures of the report')
        return [TableView(*moveLast('note', *readTable(path)), path.stem, self.getTkRoot()) for path in tables]

    def _viewSpectra(self) -> list:
        found = [path for path in self._listPictures() if 'spectr' in path.name]
        if found:
            return self._pictures(found, 'Spectra')
        report = self._getFolder() / 'report.json'
        if not report.exists():
            return self._say(f'The report is not written yet: {report}')
        rows = [row for row in readSettings(report) if 'spectr' in row[0]]
        return [TableView(['name', 'value'], rows, 'Distances of spectra', self.getTkRoot())]

    def _viewGallery(self) -> list:
        found = [path for path in self._listPictures() if 'gallery' in path.name]
        return self._pictures(found, 'Real and generated')

    def _viewPictures(self) -> list:
        found = [path for path in self._listPictures() if 'gallery' not in path.name and 'spectr' not in path.name]
        return self._pictures(found, 'Pictures of the report')
