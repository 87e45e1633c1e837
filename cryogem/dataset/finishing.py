"""Brings the micrographs of a run together: tables, particle stacks and, last, the manifest.

Goes record by record and keeps one at a time: sets of a hundred thousand micrographs are common.
"""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cryogem import __version__
from cryogem.dataset import exchange, layout, tables
from cryogem.dataset.plan import Plan
from cryogem.dataset.reader import read_finished, read_record
from cryogem.dataset.stacks import write_clean_stack, write_image_stack
from cryogem.io.files import read_json, replace_when_done
from cryogem.io.star import TableWriter
from cryogem.progress import Progress
from cryogem.records import Micrograph
from cryogem.specimen.ensemble import Ensemble


@dataclass(frozen=True)
class Contents:
    """What a run holds."""

    n_micrographs: int = 0
    n_particles: int = 0                    # that a picker should find
    n_inside: int = 0                       # with their centre inside the frame
    n_requested: int = 0                    # that were to lie inside

    def add(self, record: Micrograph) -> 'Contents':
        """Return the contents with one more micrograph."""
        return Contents(self.n_micrographs + 1, self.n_particles + len(tables.select_particles(record)),
                        self.n_inside + sum(map(record.is_center_inside, record.particles)),
                        self.n_requested + record.n_requested)


def finish_dataset(folder: Path, plan: Plan, ensemble: Ensemble) -> Contents:
    """Write the tables, the particle stacks and exchange files that are asked for, and the manifest.

    All micrographs of the plan must be finished. From here to the end there is no manifest: a run that dies in between
    must not look finished.
    """
    (folder / layout.MANIFEST).unlink(missing_ok=True)
    with tempfile.TemporaryFile('w+', encoding='utf-8', dir=folder) as checksums:
        contents = _write_tables(folder, plan, checksums)
        if plan.has_images:
            write_image_stack(folder, plan, _read_records(folder, plan, 'particle images'), contents.n_particles)
        if plan.has_clean_images:
            records = _read_records(folder, plan, 'clean particle images')
            write_clean_stack(folder, plan, records, contents.n_particles, ensemble)
        if 'cryodrgn' in plan.formats:
            exchange.write_cryodrgn(folder / layout.POSES_PICKLE, folder / layout.CTF_PICKLE,
                                    _read_records(folder, plan, 'poses'), contents.n_particles, plan.box_size)
        _write_manifest(folder, plan, contents, checksums)
    return contents


def _read_records(folder: Path, plan: Plan, what: str) -> Iterator[Micrograph]:
    progress = Progress(what, plan.n_micrographs)
    for n_read, name in enumerate(plan.list_names(), 1):
        yield read_record(folder, name)
        progress.update(n_read)


def _write_tables(folder: Path, plan: Plan, checksums: IO[str]) -> Contents:
    """Write all tables in one pass over the records; `checksums` receives lines for the manifest."""
    contents, optics, progress = Contents(), tables.number_optics([]), Progress('tables', plan.n_micrographs)
    with contextlib.ExitStack() as opened:
        def open_table(name: str, block: str = 'particles') -> TableWriter:
            return opened.enter_context(TableWriter(folder / name, block))

        micrographs, listed = open_table(layout.MICROGRAPHS_STAR, 'micrographs'), open_table(layout.PARTICLES_STAR)
        others = open_table(layout.OTHERS_STAR)
        clean = open_table(layout.CLEAN_PARTICLES_STAR) if plan.has_clean_images else None
        topaz = opened.enter_context(_open_topaz(folder)) if 'topaz' in plan.formats else None
        coco = opened.enter_context(_InstancesWriter(folder)) if 'coco' in plan.formats else None
        for name in plan.list_names():
            record, own_checksums = read_finished(folder, name)
            optics = tables.number_optics([record], optics)
            rows = tables.build_particles([record], optics, symmetry=plan.symmetry)
            n, first = len(rows['rlnMicrographName']), contents.n_particles + 1
            micrographs.append(tables.build_micrographs([record], optics))
            listed.append(rows | tables.name_images(n, first, layout.STACK) if plan.has_images else rows)
            others.append(tables.build_particles([record], optics, is_listed_pickable=False, symmetry=plan.symmetry))
            if clean:
                clean.append(rows | tables.name_images(n, first, layout.CLEAN_STACK))
            if topaz:
                topaz.write(exchange.format_topaz(record))
            if coco:
                coco.append(record)
            checksums.writelines(f'  {json.dumps(file)}: "{one}",\n' for file, one in own_checksums.items())
            contents = contents.add(record)
            progress.update(contents.n_micrographs)
        for table in filter(None, (micrographs, listed, others, clean)):
            # RELION extracts the particles of a table only if its optics say how large their images are to be
            image_size = None if table is micrographs else plan.box_size
            table.preamble = {'optics': tables.build_optics(optics, plan.pixel_size, image_size)}
    return contents


@contextlib.contextmanager
def _open_topaz(folder: Path) -> Iterator[IO[str]]:
    path = folder / layout.COORDINATES_TEXT
    with replace_when_done(path) as temporary, temporary.open('w', encoding='utf-8') as file:
        file.write(exchange.TOPAZ_HEAD)
        yield file


class _InstancesWriter:
    """Brings the outlines of all micrographs into one COCO file."""

    def __init__(self, folder: Path):
        self._folder, self._n_images, self._n_annotations = folder, 0, 0

    def __enter__(self) -> '_InstancesWriter':
        with contextlib.ExitStack() as opening:
            temporary = opening.enter_context(replace_when_done(self._folder / layout.INSTANCES))
            self._file = opening.enter_context(temporary.open('w', encoding='utf-8'))
            self._annotations = opening.enter_context(
                tempfile.TemporaryFile('w+', encoding='utf-8', dir=self._folder))
            self._closing = opening.pop_all()
        self._file.write(f'{{"categories": {json.dumps(exchange.COCO_CATEGORIES)},\n"images": [')
        return self

    def append(self, record: Micrograph) -> None:
        """Add one micrograph; images and annotations are numbered from 1 through all micrographs."""
        self._n_images += 1
        image = exchange.describe_image(record, self._n_images)
        self._file.write((',\n' if self._n_images > 1 else '\n') + json.dumps(image))
        for one in read_json(layout.instances_path(self._folder, record.name), 'output'):
            self._n_annotations += 1
            values = {**one, 'id': self._n_annotations, 'image_id': self._n_images, 'instance': one['id']}
            self._annotations.write((',\n' if self._n_annotations > 1 else '\n') + json.dumps(values))

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self._file.write('\n],\n"annotations": [')
            self._annotations.seek(0)
            shutil.copyfileobj(self._annotations, self._file)
            self._file.write('\n]}\n')
        self._closing.__exit__(*error)


def _write_manifest(folder: Path, plan: Plan, contents: Contents, checksums: IO[str]) -> None:
    """Write the manifest; `checksums` holds its lines, one for each file of a micrograph."""
    head = {'version': __version__, 'command': plan.command, 'seed': plan.seed, 'box_size': plan.box_size,
            'pixel_size': plan.pixel_size, 'shape': plan.shape, 'is_complete': True,
            'n_particles': contents.n_particles}
    with replace_when_done(folder / layout.MANIFEST) as temporary, temporary.open('w', encoding='utf-8') as file:
        file.write(json.dumps(head, indent=1).removesuffix('\n}') + ',\n "micrographs": [')
        file.writelines(_separate(f'\n  "{name}"' for name in plan.list_names()))
        file.write('\n ],\n "checksums": {\n')
        checksums.seek(0)
        last = None
        for line in checksums:
            if last:
                file.write(last)
            last = line
        file.write((last or '').removesuffix(',\n') + '\n }\n}\n')


def _separate(texts: Iterable[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        yield (',' if number else '') + text
