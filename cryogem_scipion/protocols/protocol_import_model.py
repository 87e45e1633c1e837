"""Bring a model into a project: one of another project, or a published checkpoint."""

import glob
import os
from pathlib import Path

import pyworkflow.utils as pwutils
from pyworkflow.protocol import params

from cryogem.config import ImportCheckpointConfig
from cryogem.errors import CryogemError
from cryogem.io.files import compute_checksum
from cryogem_scipion.convert import computeDigest, copyModel
from cryogem_scipion.engine import runCryogem, tellInOneSentence
from cryogem_scipion.objects import CARD, CryogemModel, readCard
from cryogem_scipion.protocols.protocol_base import ProtCryogemBase

MODEL = 'outputModel'
FOLDER, CHECKPOINT = 0, 1


class ProtCryogemImportModel(ProtCryogemBase):
    """Bring a trained model into this project.

    Either a model folder, as *cryogem - export model* and *cryogem train* leave it, or a generator that the authors
    of CryoGEM published (latest_net_G.pth). It is copied, so that the project does not depend on the place it came
    from.

    A model fits micrographs of the pixel size and the kind of noise it was trained on.
    """

    _label = 'import model'
    _configClass = ImportCheckpointConfig
    _possibleOutputs = {MODEL: CryogemModel}

    # --------------------------- DEFINE param functions ----------------------
    def _defineParams(self, form):
        form.addSection('Import')
        form.addParam('importFrom', params.EnumParam, choices=['model folder', 'published checkpoint'], default=FOLDER,
                      display=params.EnumParam.DISPLAY_HLIST, label='Import from',
                      help='model folder: what *cryogem - export model* writes. published checkpoint: the file '
                           'latest_net_G.pth of the CryoGEM authors; only its weights are read, no code of it runs.')
        form.addParam('modelFolder', params.FolderParam, default='', condition=f'importFrom == {FOLDER}',
                      important=True, label='Model folder', help='The folder that holds card.json and the weights.')
        form.addParam('checkpoint', params.FileParam, default='', condition=f'importFrom == {CHECKPOINT}',
                      important=True, label='Checkpoint',
                      help='latest_net_G.pth of a published training. Its network takes frames whose sides are '
                           'multiples of a power of two; generate says so if a simulation does not fit.')
        form.addParam('pixelSize', params.FloatParam, default=None, allowsNull=True,
                      condition=f'importFrom == {CHECKPOINT}', label='Pixel size (Å/px)',
                      help='Of the micrographs it was trained on; the checkpoint does not say it. Given, generate '
                           'refuses simulations of another pixel size; empty, you are only warned.')

    # --------------------------- INSERT steps functions ----------------------
    def _insertAllSteps(self):
        source = self._getSource()
        said = [self.importFrom.get(), source, self.pixelSize.get(), self._computeSourceDigest()]
        self._insertFunctionStep(self.importStep, *said, needsGPU=False)
        self._insertFunctionStep(self.createOutputStep, *said, needsGPU=False)

    # --------------------------- STEPS functions -----------------------------
    @tellInOneSentence
    def importStep(self, kind, source, pixelSize, digest):
        pwutils.cleanPath(self.getModelFolder())
        if kind == FOLDER:
            copyModel(source, self.getModelFolder())
        else:
            runCryogem(self, 'import-checkpoint', {'checkpoint': source, 'output': self.getModelFolder()})

    @tellInOneSentence
    def createOutputStep(self, kind, source, pixelSize, digest):
        model = CryogemModel.fromFolder(self.getModelFolder(), pixelSize if kind == CHECKPOINT else None)
        self._forgetAllOutputs()
        self._defineOutputs(**{MODEL: model})
        self._keepSummary(*model.describe(), f'Copied from {source}')

    # --------------------------- INFO functions ------------------------------
    def _validateInputs(self):
        label, source = self.getParam(self._getSourceName()).getLabel(), self._getSource()
        if not source:
            return [f'*{label}* is empty; give the path.']
        if not os.path.exists(source):
            return [f'*{label}* {source} does not exist; check the path.']
        errors = []
        if self.importFrom.get() == FOLDER:
            errors = _findFolderErrors(label, source)
        elif self.pixelSize.get() is not None and self.pixelSize.get() <= 0:
            errors.append(f'*Pixel size (Å/px)* cannot be {self.pixelSize.get()}; give a positive number.')
        return errors

    def _warnings(self):
        if self.importFrom.get() == CHECKPOINT and self.pixelSize.get() is None:
            return ['*Pixel size (Å/px)* is empty: nothing will tell a simulation of another pixel size, for which '
                    'the model is wrong.']
        return []

    def _methods(self):
        if not self.isFinished():
            return []
        return [f'A CryoGEM model [Zhang2024] was imported ({self.outputModel.getPreset()} preset).']

    # --------------------------- UTILS functions -----------------------------
    def getModelFolder(self) -> str:
        """Return the folder of the imported model."""
        return self._getExtraPath('model')

    def _getSourceName(self) -> str:
        return 'modelFolder' if self.importFrom.get() == FOLDER else 'checkpoint'

    def _getSource(self) -> str:
        return os.path.expanduser(getattr(self, self._getSourceName()).get('').strip())

    def _computeSourceDigest(self) -> str:
        """Return what changes with the content of the source: another file of the same name is imported again."""
        source = self._getSource()
        return computeDigest(os.path.join(source, CARD) if self.importFrom.get() == FOLDER else source)


def _findFolderErrors(label: str, folder: str) -> list[str]:
    """Return what keeps a folder from being a model; its weights must be those of its card."""
    try:
        card, weights = readCard(folder), glob.glob(os.path.join(glob.escape(folder), 'weights*'))
        if not weights:
            return [f'*{label}* {folder} has no weights; give the folder of a whole model.']
        checksums = {compute_checksum(Path(path)) for path in weights}
    except CryogemError as error:
        return [f'*{label}* {error}.']
    except OSError as error:
        return [f'*{label}* {folder} cannot be read ({error.strerror}); check its permissions.']
    if card.get('weights_sha256') not in checksums:
        return [f'*{label}* {folder} has other weights than its card says; export or train the model again.']
    return []
