"""Protocols of the plugin; nothing heavy is imported here, for every protocol start loads all plugins."""

from .protocol_evaluate import ProtCryogemEvaluate
from .protocol_export_model import ProtCryogemExportModel
from .protocol_generate import ProtCryogemGenerate
from .protocol_import_model import ProtCryogemImportModel
from .protocol_simulate import ProtCryogemSimulate
from .protocol_train import ProtCryogemTrain

__all__ = ['ProtCryogemEvaluate', 'ProtCryogemExportModel', 'ProtCryogemGenerate', 'ProtCryogemImportModel',
           'ProtCryogemSimulate', 'ProtCryogemTrain']
