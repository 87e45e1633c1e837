"""Viewers of the protocols and of our objects; none needs Java or Xmipp."""

from .viewer_evaluate import CryogemEvaluateViewer
from .viewer_generate import CryogemGenerateViewer
from .viewer_objects import CryogemEvaluationViewer, CryogemModelViewer, CryogemSimulationViewer
from .viewer_simulate import CryogemSimulateViewer
from .viewer_train import CryogemTrainViewer

__all__ = ['CryogemEvaluateViewer', 'CryogemEvaluationViewer', 'CryogemGenerateViewer', 'CryogemModelViewer',
           'CryogemSimulateViewer', 'CryogemSimulationViewer', 'CryogemTrainViewer']
