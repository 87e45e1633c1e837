"""Take a model out of a project, to use it elsewhere."""

import os

from pyworkflow.protocol import params

from cryogem_scipion.convert import computeDigest, copyModel
from cryogem_scipion.engine import tellInOneSentence
from cryogem_scipion.objects import CARD
from cryogem_scipion.protocols.protocol_base import ProtCryogemBase


class ProtCryogemExportModel(ProtCryogemBase):
    """Copy a trained model to a folder outside this project.

    The folder holds the weights, the card that says how they were made, and the curves of the training. Import it
    into another project with *cryogem - import model*, or use it from a shell:

    cryogem generate --model FOLDER --dataset SIMULATION --output RESULT
    """

    _label = 'export model'

    # --------------------------- DEFINE param functions ----------------------
    def _defineParams(self, form):
        form.addSection('Export')
        form.addParam('inputModel', params.PointerParam, pointerClass='CryogemModel', important=True, label='Model',
                      help='A model of *cryogem - train* or *cryogem - import model*.')
        form.addParam('exportFolder', params.FolderParam, default='', important=True, label='Folder',
                      help='Where the model is copied to. A new or empty folder: nothing is ever overwritten.')

    # --------------------------- INSERT steps functions ----------------------
    def _insertAllSteps(self):
        model = self.inputModel.get()
        self._insertFunctionStep(self.exportStep, model.getPath(), self._getFolder(), needsGPU=False)

    # --------------------------- STEPS functions -----------------------------
    @tellInOneSentence
    def exportStep(self, path, folder):
        if not self._isExported(folder):
            copyModel(path, folder)
        self._keepSummary(f'Copied to *{folder}*', *self.inputModel.get().describe())

    # --------------------------- INFO functions ------------------------------
    def _validateInputs(self):
        folder = self._getFolder()
        if not folder:
            return ['*Folder* is empty; say where the model is copied to.']
        if os.path.exists(folder) and not self._isExported(folder) and (
                not os.path.isdir(folder) or os.listdir(folder)):
            return [f'*Folder* {folder} holds something already; give a new or empty folder.']
        existing = os.path.dirname(os.path.abspath(folder))
        while not os.path.exists(existing):
            existing = os.path.dirname(existing)
        if not os.access(existing, os.W_OK):
            return [f'*Folder* {folder} cannot be made, {existing} is not writable; give another folder.']
        return []

    # --------------------------- UTILS functions -----------------------------
    def _getFolder(self) -> str:
        return os.path.expanduser(self.exportFolder.get('').strip())

    def _isExported(self, folder: str) -> bool:
        """Say whether the folder holds this very model: Continue has nothing to do then."""
        model = self.inputModel.get()
        digest = computeDigest(os.path.join(folder, CARD))
        return model is not None and digest != '' and digest == computeDigest(os.path.join(model.getPath(), CARD))
