"""Viewers of the protocols and of the model; none needs Java or Xmipp."""

from .viewer_evaluate import CryogemEvaluateViewer
from .viewer_generate import CryogemGenerateViewer
from .viewer_model import CryogemModelViewer
from .viewer_simulate import CryogemSimulateViewer
from .viewer_train import CryogemTrainViewer

__all__ = ['CryogemEvaluateViewer', 'CryogemGenerateViewer', 'CryogemModelViewer', 'CryogemSimulateViewer',
           'CryogemTrainViewer']
