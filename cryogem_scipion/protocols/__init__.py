"""Protocols of the plugin; nothing heavy is imported here, for every protocol start loads all plugins."""

from .protocol_generate import ProtCryogemGenerate
from .protocol_simulate import ProtCryogemSimulate
from .protocol_train import ProtCryogemTrain

__all__ = ['ProtCryogemGenerate', 'ProtCryogemSimulate', 'ProtCryogemTrain']
