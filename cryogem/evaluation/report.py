"""The report: one HTML page that needs no other file, the table as CSV, and all numbers as JSON."""

import base64
import csv
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryogem.evaluation.suspicion import Suspicion
from cryogem.io.files import write_json, write_text

HTML, JSON, TABLE, MARKDOWN = 'report.html', 'report.json', 'table.csv', 'table.md'
LOW, HIGH, NONE = 'low', 'high', ''         # what is better in a row
_STYLE = """
body { font-family: sans-serif; max-width: 1300px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; font-size: 0.85em; } th, td { border: 1px solid #ccc; padding: 0.3em 0.6em; }
th { background: #f2f2f2; } td.best { background: #d6f0d6; } td.worst { background: #f8d9d4; }
tr.group td { background: #e4e8ee; font-weight: bold; } td.note { color: #555; font-style: italic; }
.verdict { font-size: 1.1em; background: #eef3fa; padding: 0.8em 1.2em; }
.warning { background: #fde9c8; padding: 0.6em 1em; }
img { max-width: 100%; border: 1px solid #ddd; }
figcaption { color: #444; margin: 0.3em 0 1.5em; } figure { margin: 0; }
"""


@dataclass(frozen=True)
class Cell:
    """One arm's entry in a row."""

    text: str
    value: float | None = None              # by which best and worst are found


@dataclass(frozen=True)
class Row:
    """One row of the table; a row without cells says in its note why."""

    group: str
    label: str
    cells: dict[str, Cell] = field(default_factory=dict)
    better: str = NONE
    note: str = ''

    def find_extremes(self, judged: Sequence[str]) -> tuple[set[str], set[str]]:
        """Return the best and the worst of the arms `judged`; none where all are equal or fewer than two."""
        values = {arm: self.cells[arm].value for arm in judged if arm in self.cells}
        known = {arm: value for arm, value in values.items() if value is not None}
        if self.better == NONE or len(known) < 2 or min(known.values()) == max(known.values()):
            return set(), set()
        low, high = ({arm for arm, value in known.items() if value == end} for end in
                     (min(known.values()), max(known.values())))
        return (low, high) if self.better == LOW else (high, low)


@dataclass(frozen=True)
class Picture:
    """A PNG beside the report."""

    file: str
    caption: str


@dataclass(frozen=True)
class Report:
    """All that the page says."""

    title: str
    arms: dict[str, str]                    # column -> what it is
    judged: tuple[str, ...]                 # columns among which best and worst are marked
    rows: tuple[Row, ...]
    verdict: tuple[str, ...]
    warnings: tuple[str, ...]
    suspicious: dict[str, tuple[Suspicion, ...]]        # by generated set
    pictures: tuple[Picture, ...]
    facts: tuple[str, ...]                  # how it was measured
    numbers: dict[str, Any]                 # report.json


def write_report(folder: Path, report: Report) -> None:
    """Write report.html, report.json, table.csv and table.md beside the pictures."""
    write_json(folder / JSON, {
        **report.numbers, 'verdict': list(report.verdict), 'warnings': list(report.warnings),
        'suspicious': {name: [vars(one) for one in found] for name, found in report.suspicious.items()}})
    write_text(folder / TABLE, format_csv(report))
    write_text(folder / MARKDOWN, format_markdown(report))
    write_text(folder / HTML, format_html(report, folder))


def format_csv(report: Report) -> str:
    """Return the table: group, row, note, then a column for each arm."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['group', 'measure', 'better', 'note', *report.arms])
    for row in report.rows:
        cells = [row.cells[arm].text if arm in row.cells else '' for arm in report.arms]
        writer.writerow([row.group, row.label, row.better, row.note, *cells])
    return text.getvalue()


def format_html(report: Report, folder: Path) -> str:
    """Return the page with its pictures, read from `folder`, inside."""
    parts = [f'<h1>{_escape(report.title)}</h1>',
             '<div class="verdict">', *(f'<p>{_escape(one)}</p>' for one in report.verdict), '</div>',
             *(f'<p class="warning"><b>Warning:</b> {_escape(one)}</p>' for one in report.warnings),
             *_list_suspicious(report), '<h2>Table</h2>', *_format_table(report),
             '<h2>Pictures</h2>', *(_embed(folder / one.file, one.caption) for one in report.pictures),
             '<h2>How this was measured</h2>', '<ul>', *(f'<li>{_escape(one)}</li>' for one in report.facts), '</ul>']
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{_escape(report.title)}</title>'
            f'<style>{_STYLE}</style></head>\n<body>\n' + '\n'.join(parts) + '\n</body></html>\n')


def format_markdown(report: Report) -> str:
    """Return the table in Markdown, best entries bold and worst ones in italics."""
    lines = ['| | ' + ' | '.join(report.arms) + ' |', '|---' * (len(report.arms) + 1) + '|']
    for row in report.rows:
        if not row.cells:
            lines.append(f'| {row.label} | ' + ' | '.join([row.note] + [''] * (len(report.arms) - 1)) + ' |')
            continue
        best, worst = row.find_extremes(report.judged)
        cells = []
        for arm in report.arms:
            text = row.cells[arm].text if arm in row.cells else ''
            cells.append(f'**{text}**' if arm in best else f'*{text}*' if arm in worst else text)
        lines.append(f'| {row.label} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines) + '\n'


def _list_suspicious(report: Report) -> list[str]:
    found = [(arm, one) for arm, suspicions in report.suspicious.items() for one in suspicions]
    if not found:
        return ['<p>No single micrograph looks wrong.</p>']
    return ['<h2>Micrographs that look wrong</h2><ul>',
            *(f'<li><b>{_escape(one.name)}</b> ({_escape(arm)}): {_escape(one.text)}</li>' for arm, one in found),
            '</ul>']


def _format_table(report: Report) -> list[str]:
    head = ''.join(f'<th title="{_escape(text)}">{_escape(arm)}</th>' for arm, text in report.arms.items())
    lines = [f'<table><tr><th></th>{head}</tr>']
    group = None
    for row in report.rows:
        if row.group != group:
            group = row.group
            lines.append(f'<tr class="group"><td colspan="{len(report.arms) + 1}">{_escape(group)}</td></tr>')
        lines.append(_format_row(row, report))
    legend = ''.join(f'<li><b>{_escape(arm)}</b>: {_escape(text)}</li>' for arm, text in report.arms.items())
    return [*lines, '</table>', '<p>Green: best of its row, red: worst, real micrographs aside.</p>',
            f'<ul>{legend}</ul>']


def _format_row(row: Row, report: Report) -> str:
    if not row.cells:
        return (f'<tr><td>{_escape(row.label)}</td><td class="note" colspan="{len(report.arms)}">'
                f'{_escape(row.note)}</td></tr>')
    best, worst = row.find_extremes(report.judged)
    cells = []
    for arm in report.arms:
        mark = ' class="best"' if arm in best else ' class="worst"' if arm in worst else ''
        cells.append(f'<td{mark}>{_escape(row.cells[arm].text) if arm in row.cells else ""}</td>')
    note = f'<br><small>{_escape(row.note)}</small>' if row.note else ''
    return f'<tr><td>{_escape(row.label)}{note}</td>{"".join(cells)}</tr>'


def _embed(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode('ascii')
    return (f'<figure><img alt="{_escape(caption)}" src="data:image/png;base64,{data}">'
            f'<figcaption>{_escape(caption)}</figcaption></figure>')


def _escape(text: str) -> str:
    return html.escape(text, quote=True)
