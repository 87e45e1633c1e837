"""The wizards as Scipion knows them: which parameter of which protocol they serve, and how they show a proposal."""

import tempfile
from collections.abc import Callable

from pyworkflow.exceptions import PyworkflowException
from pyworkflow.gui.dialog import EntryDialog, showError
from pyworkflow.wizard import Wizard

from cryogem.errors import CryogemError
from cryogem_scipion.protocols import ProtCryogemGenerate, ProtCryogemSimulate
from cryogem_scipion.wizards import proposals
from cryogem_scipion.wizards.dialogs import GivenUp, ProposalDialog, WaitingMessage
from cryogem_scipion.wizards.proposals import KeepAlive, Proposal, ProposalError

_TITLE = 'CryoGEM'


class CryogemWizard(Wizard):
    """Base class: makes a proposal while a message is shown, lets the user see it, and fills it into the form."""

    _targets: list = []
    _sets: tuple[str, ...] = ()             # parameters of the form that it fills in
    _labels: dict[str, str] = {}            # what they are called where the form says it only once for two

    def propose(self, protocol, folder: str, keepAlive: KeepAlive) -> Proposal:
        """Return the proposal for the present values of a form; `folder` is for files that live as long as it."""
        raise NotImplementedError

    def show(self, form, *params):
        """Do all of it; called by the form."""
        with temporaryFolder() as folder:
            proposal = makeWithMessage(form.root, lambda alive: self.propose(form.protocol, folder, alive))
            accepted = self._ask(form, proposal, folder) if proposal is not None else None
        if accepted is not None:
            for name in self._sets:
                form.setVar(name, accepted.values[name])

    def _ask(self, form, proposal: Proposal, folder: str) -> Proposal | None:
        """Return what the user takes from the window, None if nothing."""
        labels = {name: self._labels.get(name) or form.protocol.getParam(name).label.get() for name in self._sets}
        dialog = ProposalDialog(form.root, _TITLE, proposal, labels, **self._getField(form, folder))
        return dialog.proposal if dialog.resultYes() else None

    def _getField(self, form, folder: str) -> dict:
        """Return the keywords of the dialog for a value that can be tried."""
        return {}


class CryogemMapWizard(CryogemWizard):
    """Diameter of the particle, from the map."""

    _targets = [(ProtCryogemSimulate, ['particleDiameter'])]
    _sets = ('particleDiameter',)

    def propose(self, protocol, folder, keepAlive):
        """Measure the map, with the threshold of the form if there is one."""
        return proposals.proposeFromMap(protocol, folder, protocol.maskThreshold.get(), keepAlive)

    def _getField(self, form, folder):
        def redraw(text: str) -> Proposal | None:
            return makeWithMessage(form.root, lambda alive: proposals.proposeFromMap(
                form.protocol, folder, toNumber(text, 'Mask threshold'), alive))
        return {'redraw': redraw, 'field': ('Mask threshold', 'maskThreshold')}


class CryogemMaskWizard(CryogemMapWizard):
    """Threshold of the mask, from the histogram of the map."""

    _targets = [(ProtCryogemSimulate, ['maskThreshold'])]
    _sets = ('maskThreshold',)


class CryogemPicksWizard(CryogemWizard):
    """Particles on a micrograph and their distance, from the picks."""

    _targets = [(ProtCryogemSimulate, ['particlesMean', 'particlesSd', 'minimumDistance'])]
    _sets = ('particlesMean', 'particlesSd', 'minimumDistance')
    _labels = {'particlesMean': 'Particles per micrograph', 'particlesSd': 'Standard deviation'}

    def propose(self, protocol, folder, keepAlive):
        """Measure the picks."""
        return proposals.proposeFromPicks(protocol, folder, keepAlive)


class CryogemPixelSizeWizard(CryogemWizard):
    """Pixel size of the simulation, from the diameter and the micrographs."""

    _targets = [(ProtCryogemSimulate, ['workingPixelSize'])]
    _sets = ('workingPixelSize',)

    def propose(self, protocol, folder, keepAlive):
        """Choose it as the engine would."""
        return proposals.proposePixelSize(protocol, folder, keepAlive)


class CryogemBoxWizard(CryogemWizard):
    """Box of the particles, from the diameter and the pixel size."""

    _targets = [(ProtCryogemSimulate, ['boxSize'])]
    _sets = ('boxSize',)

    def propose(self, protocol, folder, keepAlive):
        """Choose it as the engine would."""
        return proposals.proposeBoxSize(protocol, folder, keepAlive)


class CryogemDefocusWizard(CryogemWizard):
    """Range of the defocus, from the CTF set."""

    _targets = [(ProtCryogemSimulate, ['defocusMin', 'defocusMax'])]
    _sets = ('defocusMin', 'defocusMax')
    _labels = {'defocusMin': 'Least defocus (Å)', 'defocusMax': 'Largest defocus (Å)'}

    def propose(self, protocol, folder, keepAlive):
        """Look through the set."""
        return proposals.proposeDefocus(protocol, folder, keepAlive)


class CryogemPreviewWizard(CryogemWizard):
    """One micrograph as the form would make it."""

    _targets = [(ProtCryogemSimulate, ['preview'])]

    def propose(self, protocol, folder, keepAlive):
        """Make it."""
        return proposals.makePreview(protocol, folder, keepAlive)


class CryogemSimulatedNumberWizard(CryogemWizard):
    """Number of micrographs, from a number of particles that the user is asked for."""

    _targets = [(ProtCryogemSimulate, ['nMicrographs'])]
    _sets = ('nMicrographs',)
    _count: Callable = staticmethod(proposals.countForSimulate)

    def show(self, form, *params):
        """Ask for the number of particles and fill in that of micrographs."""
        each = makeWithMessage(form.root, lambda alive: self._count(form.protocol))
        if each is None:
            return
        dialog = EntryDialog(form.root, _TITLE, 'Particles that are wanted', defaultValue='10000',
                             headerLabel=f'About {each:.0f} particles lie on a micrograph.')
        if dialog.value is None:
            return
        proposal = makeWithMessage(form.root, lambda alive: self.proposeFor(form.protocol, dialog.value))
        if proposal is not None:
            form.setVar('nMicrographs', proposal.values['nMicrographs'])

    def proposeFor(self, protocol, text: str) -> Proposal:
        """Return the proposal for a number of particles as it was typed."""
        wanted = toNumber(text, 'Particles that are wanted')
        if wanted <= 0:
            raise ProposalError(f'*Particles that are wanted* cannot be {text}; give a positive number.')
        return proposals.proposeNumber(protocol, wanted, self._count(protocol))


class CryogemGeneratedNumberWizard(CryogemSimulatedNumberWizard):
    """The same for generate, from what the simulation holds."""

    _targets = [(ProtCryogemGenerate, ['nMicrographs'])]
    _count: Callable = staticmethod(proposals.countForGenerate)


def temporaryFolder() -> tempfile.TemporaryDirectory:
    """Return a folder that is gone with the wizard."""
    return tempfile.TemporaryDirectory(prefix='cryogem_wizard_')


def makeWithMessage(root, make: Callable[[KeepAlive], Proposal | None]):
    """Return what `make` returns while a message asks for patience; None, and its sentence in a window, if it fails.

    The windows of the project stay alive meanwhile, and Cancel gives up.
    """
    message = WaitingMessage(root, _TITLE)
    sentence = ''
    try:
        return make(message.keepAlive)
    except GivenUp:
        return None
    except (CryogemError, PyworkflowException) as error:
        sentence = str(error)
    finally:
        message.close()
    showError('Not possible yet', sentence, root)
    return None


def toNumber(text: str, label: str) -> float:
    """Return the number that was typed."""
    try:
        return float(text)
    except ValueError:
        raise ProposalError(f'*{label}* cannot be {text!r}; give a number.') from None


__all__ = ['CryogemBoxWizard', 'CryogemDefocusWizard', 'CryogemGeneratedNumberWizard', 'CryogemMapWizard',
           'CryogemMaskWizard', 'CryogemPicksWizard', 'CryogemPixelSizeWizard', 'CryogemPreviewWizard',
           'CryogemSimulatedNumberWizard']
