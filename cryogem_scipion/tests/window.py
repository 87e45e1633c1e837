"""Drives Scipion's real project window on an X server, as a user would, and saves what it shows.

    xvfb-run -a -s '-screen 0 1600x1200x24' python -m cryogem_scipion.tests.window PROJECT FOLDER STORY [STORY ...]

The stories are the functions `tell...` below. Leaves with 1 on an exception inside Tk, a window that asks for attention
unasked, a picture of one colour, or a story that does not end. Run by test_gui.py; makes the pictures of the manual.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tkinter as tk
import traceback
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from tkinter import ttk
from typing import Any

from PIL import Image, ImageGrab

_SIZE, _TALL = '1500x950+0+0', '1300x1150+0+0'          # of the project window
_GRAPH = 645                                # px of its height for the graph of the runs
_PAGE = '1100,1500'                         # px of a page in the browser
_SMALL = 150_000                            # bytes that a picture may have
_PATIENCE = 900                             # s for one wait inside a story: test machines may be busy


def findChildren(widget) -> Iterator[Any]:
    """Yield every widget below a widget."""
    for child in widget.winfo_children():
        yield child
        yield from findChildren(child)


class Driver:
    """Acts on a project window in steps that Tk's own event loop calls."""

    def __init__(self, projectName: str, folder: Path, stories: list[Callable[['Driver'], Iterator[float]]],
                 patience: float = _PATIENCE):
        from pyworkflow.gui.plotter import Plotter
        from pyworkflow.gui.project import ProjectWindow
        from pyworkflow.project import Manager
        tk.Tk.report_callback_exception = lambda widget, *error: self.fail(*error)
        self.folder, self._stories, self.patience = folder, stories, patience
        self.saved: list[Path] = []
        self.window = ProjectWindow(Manager().getProjectPath(projectName))
        Plotter.setBackend('TkAgg')
        self.root, self.project = self.window.root, self.window.project

    def run(self) -> None:
        """Tell the stories and leave; does not return."""
        self.root.after(2500, self._advance, self._tellAll())
        self.window.show()

    def _tellAll(self) -> Iterator[float]:
        self.root.geometry(_SIZE)
        yield 1
        for story in self._stories:
            yield from story(self)

    def _advance(self, steps: Iterator[float]) -> None:
        """Do the next step of a story; it says how many seconds later the one after that is due."""
        try:
            pause = next(steps)
        except StopIteration:
            self.leave()
        except Exception:       # noqa: BLE001  whatever it is, the process must end and say so
            self.fail(*sys.exc_info())
        else:
            self.root.after(int(1000 * pause), self._advance, steps)

    def fail(self, *error) -> None:
        """Leave because of an exception."""
        traceback.print_exception(*error)
        self.leave(f'exception: {error[1]}')

    def leave(self, complaint: str = '') -> None:
        """End the process; the window leaves threads behind."""
        if complaint:
            print('ERROR: ' + complaint, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1 if complaint else 0)

    # ------------------------------ what is on the screen ------------------------------
    def listDialogs(self) -> list:
        """Return the visible windows beside the project's, of all interpreters of Tk, newest last."""
        return [one for one in findChildren(self.root) if isinstance(one, tk.Toplevel) and one.winfo_viewable()]

    def waitForDialog(self, known: list) -> Iterator[float]:
        """Wait until a window opens that is not among `known`, past those that ask to wait."""
        from cryogem_scipion.wizards.dialogs import WAITING
        yield from self.waitUntil(lambda: any(one not in known and not one.title().endswith(WAITING)
                                              for one in self.listDialogs()))

    def waitUntil(self, isDone: Callable[[], bool], patience: float = _PATIENCE) -> Iterator[float]:
        """Wait until something holds, s at most."""
        end = time.monotonic() + patience
        while not isDone():
            if time.monotonic() > end:
                raise TimeoutError(f'nothing came of it in {patience} s')
            yield 0.5

    def press(self, window, text: str) -> None:
        """Press the button of a window that bears a text."""
        button = next(one for one in findChildren(window) if isinstance(one, tk.Button) and one.cget('text') == text)
        button.invoke()

    def save(self, window, name: str) -> None:
        """Save what the screen shows of a window as a small PNG."""
        for _ in range(5):
            window.update()
            time.sleep(0.1)
        left, top = max(window.winfo_rootx(), 0), max(window.winfo_rooty(), 0)
        box = (left, top, left + window.winfo_width(), top + window.winfo_height())
        picture = ImageGrab.grab(bbox=box, xdisplay=os.environ['DISPLAY'])
        path = self.folder / f'{name}.png'
        path = saveSmall(picture, path)
        darkest, brightest = picture.convert('L').getextrema()
        if darkest == brightest:
            raise ValueError(f'{name} is all one colour: the window was not drawn')
        self.saved.append(path)
        print(path, picture.size, flush=True)

    def photograph(self, address: str, name: str) -> None:
        """Save what a browser shows of a page, from its top; without a browser there is no picture."""
        browser = shutil.which('chromium') or shutil.which('google-chrome')
        if browser is None:
            print(f'{name}: no browser is installed', flush=True)
            return
        with tempfile.TemporaryDirectory() as folder:
            shot = Path(folder, 'page.png')
            subprocess.run([browser, '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars',
                            f'--window-size={_PAGE}', f'--screenshot={shot}', f'--user-data-dir={folder}/profile',
                            address], check=True, timeout=_PATIENCE, capture_output=True)
            with Image.open(shot) as picture:
                self.saved.append(saveSmall(picture, self.folder / f'{name}.png'))
        print(self.saved[-1], flush=True)

    def findRun(self, className: str):
        """Return the newest finished run of a protocol."""
        return next(run for run in reversed(list(self.project.getRuns()))
                    if run.getClassName() == className and run.isFinished())


def saveSmall(picture, path: Path) -> Path:
    """Save a picture as PNG, or as JPEG where that is too large: micrographs are noise; return where it is."""
    picture.save(path, optimize=True)
    quality = 85
    while path.stat().st_size > _SMALL:
        path.unlink()
        path = path.with_suffix('.jpg')
        picture.convert('RGB').save(path, quality=quality, optimize=True)
        quality -= 10
    return path


def linkInputs(project, protocol) -> None:
    """Link what a user has to choose: what is real to the newest imports, what is ours to the newest run of ours."""
    from pyworkflow.object import Pointer, PointerList
    runs = list(reversed(list(project.getRuns())))
    for name, param in protocol._definition.iterPointerParams():
        if param.allowsNull and not param.isImportant():
            continue
        pointer = getattr(protocol, name)
        accepted = {text.strip() for text in str(param.pointerClass.get()).split(',')}
        for run in runs:
            if isinstance(pointer, PointerList) and run.getClassName() in accepted and pointer.isEmpty():
                pointer.append(Pointer(run, extended='outputMicrographs'))
            for output, value in run.iterOutputAttributes():
                kinds = {base.__name__ for base in type(value).__mro__}
                isImported = run.getClassName().startswith('ProtImport')
                isFitting = bool(accepted & kinds) and (isImported or type(value).__name__.startswith('Cryogem'))
                if isinstance(pointer, Pointer) and not pointer.hasValue() and isFitting:
                    pointer.set(run)
                    pointer.setExtended(output)


def listOurProtocols() -> dict[str, type]:
    """Return the protocols of this plugin by class name, in the order of work."""
    import pyworkflow as pw
    order = ('Simulate', 'ImportModel', 'Train', 'Generate', 'Evaluate', 'ExportModel')
    found = {name: one for name, one in pw.Config.getDomain().getProtocols().items() if name.startswith('ProtCryogem')}
    return dict(sorted(found.items(), key=lambda item: next(
        (place for place, word in enumerate(order) if item[0].endswith(word)), len(order))))


# ------------------------------ stories ------------------------------
def tellWindow(driver: Driver) -> Iterator[float]:
    """The project window with the newest run of ours selected."""
    view = driver.window.getViewWidget()
    view.refreshRuns()
    run = next(one for one in reversed(list(driver.project.getRuns()))
               if one.isFinished() and one.getClassName().startswith('ProtCryogem'))
    view._selectItemProtocol(run)
    view._updateSelection()
    driver.root.geometry(_TALL)
    yield 1
    for pane in [one for one in findChildren(driver.root) if isinstance(one, ttk.PanedWindow)]:
        if str(pane.cget('orient')) == 'vertical':
            pane.sashpos(0, _GRAPH)         # room for the whole graph
    yield 1
    driver.save(driver.root, 'window')


def tellForms(driver: Driver) -> Iterator[float]:
    """The form of each protocol, every tab, at normal and at expert level."""
    for name, protocolClass in listOurProtocols().items():
        for level, word in ((0, 'normal'), (1, 'expert')):
            protocol = driver.project.newProtocol(protocolClass)
            protocol.expertLevel.set(level)
            linkInputs(driver.project, protocol)
            form = yield from openForm(driver, protocol)
            notebook = next(one for one in findChildren(form) if isinstance(one, ttk.Notebook))
            for tab in notebook.tabs():
                notebook.select(tab)
                title = re.sub(r'\W+', '_', notebook.tab(tab, 'text')).strip('_').lower()
                yield 0.3
                driver.save(form, f'form_{name.removeprefix("ProtCryogem").lower()}_{title}_{word}')
            form.destroy()
            yield 0.3


def tellExecute(driver: Driver) -> Iterator[float]:
    """Fill in generate, press Execute, and wait until the run is finished."""
    from cryogem_scipion.protocols import ProtCryogemGenerate
    protocol = driver.project.newProtocol(ProtCryogemGenerate, nMicrographs=2, useGpu=False)
    protocol.noise.set(protocol.getParam('noise').choices.index('measured'))
    linkInputs(driver.project, protocol)
    run = yield from execute(driver, protocol)
    driver.save(driver.root, 'executed')
    print(f'executed: {run.getStatus()}, {run.outputMicrographs.getSize()} micrographs', flush=True)


def execute(driver: Driver, protocol, picture: str = '') -> Generator[float, None, Any]:
    """Open the form of a protocol, press Execute and return its run when it is finished and selected in the graph.

    Parameters
    ----------
    picture : name of a picture of the form; '' for none.
    """
    from cryogem_scipion.tests.in_process import updateFromDisk
    form = yield from openForm(driver, protocol)
    if picture:
        driver.save(form, picture)
    known = driver.listDialogs()
    driver.root.after(10, driver.press, form, 'Execute')

    def listQuestions() -> list:
        return [one for one in driver.listDialogs() if one not in known]
    while form.winfo_exists():              # it is gone once the run is launched
        yield from driver.waitUntil(lambda: bool(listQuestions()) or not form.winfo_exists())
        yield 1                             # a window that is answered before it is all there is a fault inside Tk
        for dialog in listQuestions():
            answerWarning(driver, dialog, f'{picture or "form"}_asks')

    def isOver() -> bool:
        run = driver.project.getProtocol(protocol.getObjId()) if protocol.hasObjId() else None
        if run is not None:
            driver.project._updateProtocol(run)
        return run is not None and not run.isActive()
    yield from driver.waitUntil(isOver, driver.patience)
    run = driver.project.getProtocol(protocol.getObjId())
    updateFromDisk(driver.project, run)     # the window takes a run whose process has just ended for killed
    view = driver.window.getViewWidget()
    view.refreshRuns()
    view._selectItemProtocol(run)
    view._updateSelection()
    yield 0.5
    if not run.isFinished():
        raise RuntimeError(f'the run is {run.getStatus()}: {run.getErrorMessage()}')
    return run


def answerWarning(driver: Driver, dialog, picture: str) -> None:
    """Save what a window warns of, and say Yes to it; any other window is an error."""
    said = ' '.join(one.get('1.0', 'end').strip() for one in findChildren(dialog) if isinstance(one, tk.Text))
    driver.save(dialog, picture)
    if 'warnings' not in dialog.title():
        raise RuntimeError(f'a window asks for attention: {dialog.title()}: {said}')
    print(f'warned: {said}', flush=True)
    driver.press(dialog, 'Yes')


def tellViewers(driver: Driver) -> Iterator[float]:
    """The viewer of each finished protocol of ours, and what each of its buttons opens."""
    import matplotlib.pyplot as plt
    import pyworkflow as pw
    from pyworkflow.viewer import DESKTOP_TKINTER
    domain = pw.Config.getDomain()
    finished = {run.getClassName(): run for run in driver.project.getRuns() if run.isFinished()}
    for name in listOurProtocols():
        if name not in finished:
            continue
        run, word = finished[name], name.removeprefix('ProtCryogem').lower()
        found = domain.findViewers(run, DESKTOP_TKINTER)
        if not found or not hasattr(found[0], '_buttons'):
            continue
        viewer = found[0](project=driver.project, protocol=run, parent=driver.window)
        known = driver.listDialogs()
        driver.root.after(10, lambda viewer=viewer, run=run: viewer.visualize(run, windows=driver.window))
        yield from driver.waitForDialog(known)
        yield 1
        form = driver.listDialogs()[-1]
        form.geometry('+60+40')
        yield 0.5
        driver.save(form, f'viewer_{word}')
        for button in viewer._buttons:
            yield from openButton(driver, viewer, button, f'viewer_{word}_{button}')
        plt.close('all')
        form.destroy()
        yield 0.3


def openButton(driver: Driver, viewer, button: str, name: str) -> Iterator[float]:
    """Press a button of a viewer's form and save the window it opens; pages go to a file in place of a browser."""
    import webbrowser

    import matplotlib.pyplot as plt
    opened: list[str] = []
    known, figures = driver.listDialogs(), plt.get_fignums()

    def note(url: str, new: int = 0, autoraise: bool = True) -> bool:
        opened.append(url)
        return True
    webbrowser.open = note
    driver.root.after(10, viewer._visualizeParam, button)
    yield from driver.waitUntil(lambda: bool(opened) or plt.get_fignums() != figures
                                or any(one not in known for one in driver.listDialogs()))
    yield 1
    for number in plt.get_fignums():
        if number not in figures:
            window: Any = getattr(plt.figure(number).canvas.manager, 'window')     # noqa: B009  only TkAgg has it
            window.geometry('+40+40')
            window.lift()
            yield 1
            driver.save(window, name)
            plt.close(number)
    for window in driver.listDialogs():
        if window not in known and window.winfo_exists():
            window.geometry('+40+40')
            window.lift()
            yield 0.5
            driver.save(window, name)
            window.destroy()
    for address in opened:
        print(f'{name}: {address}', flush=True)
        driver.photograph(address, name)


def tellWizards(driver: Driver) -> Iterator[float]:
    """Every wizard of simulate: its window is saved, its proposal is used, and the form shows it."""
    import pyworkflow as pw
    from pyworkflow.viewer import DESKTOP_TKINTER

    from cryogem_scipion.protocols import ProtCryogemSimulate
    protocol = driver.project.newProtocol(ProtCryogemSimulate, useGpu=False)
    protocol.expertLevel.set(1)
    linkInputs(driver.project, protocol)
    form = yield from openForm(driver, protocol)
    window = next(one for one in _listFormWindows() if one.root is form)
    for name, wizard in pw.Config.getDomain().findWizards(protocol, DESKTOP_TKINTER).items():
        if name in ('defocusMax', 'particlesSd', 'minimumDistance'):            # the same window as their neighbour
            continue
        if name == 'defocusMin' and protocol.getCtfPointer().get() is None:
            continue
        known = driver.listDialogs()
        driver.root.after(10, wizard().show, window)
        yield from driver.waitForDialog(known)
        yield 1
        dialog = driver.listDialogs()[-1]
        if any(word in dialog.title() for word in ('Error', 'Warning', 'Not possible')):
            raise RuntimeError(f'the wizard of {name} fails')
        dialog.geometry('+60+40')
        driver.save(dialog, f'wizard_{name}')
        texts = [one.cget('text') for one in findChildren(dialog) if isinstance(one, tk.Button)]
        driver.press(dialog, next(text for text in ('Use', 'OK', 'Close') if text in texts))
        yield 1
        for parameter in getattr(wizard, '_sets', ()):
            if not window.widgetDict[parameter].get():
                raise RuntimeError(f'the wizard of {name} left {parameter} empty')
    form.destroy()
    yield 0.3


def openForm(driver: Driver, protocol) -> Generator[float, None, Any]:
    """Open the form of a protocol and return its window."""
    known = driver.listDialogs()
    driver.root.after(10, lambda: driver.window.getViewWidget()._openProtocolForm(protocol, disableRunMode=True))
    yield from driver.waitForDialog(known)
    yield 1.2
    form = driver.listDialogs()[-1]
    form.geometry('+60+20')
    yield 0.3
    return form


def _listFormWindows() -> list:
    """Return the form windows that live: Scipion keeps no list of them."""
    import gc

    from pyworkflow.gui.form import FormWindow
    return [one for one in gc.get_objects() if isinstance(one, FormWindow)]


STORIES: dict[str, Callable[[Driver], Iterator[float]]] = {
    'window': tellWindow, 'forms': tellForms, 'execute': tellExecute, 'viewers': tellViewers, 'wizards': tellWizards}


def main() -> None:
    """Read the command line and drive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('project', help='name of a project with finished runs')
    parser.add_argument('folder', type=os.path.abspath, help='where the pictures go')
    parser.add_argument('stories', nargs='+', choices=sorted(STORIES))
    args = parser.parse_args()
    folder = Path(args.folder)
    folder.mkdir(parents=True, exist_ok=True)
    Driver(args.project, folder, [STORIES[name] for name in args.stories]).run()


if __name__ == '__main__':
    main()
