"""Wizards: the magic wand beside a parameter looks at the inputs and proposes its value, with a picture where it helps.

Scipion finds the classes here; what they propose is made without a display by `proposals`.
"""

from .wizards import (
    CryogemBoxWizard,
    CryogemDefocusWizard,
    CryogemGeneratedNumberWizard,
    CryogemMapWizard,
    CryogemMaskWizard,
    CryogemPicksWizard,
    CryogemPixelSizeWizard,
    CryogemPreviewWizard,
    CryogemSimulatedNumberWizard,
)

__all__ = ['CryogemBoxWizard', 'CryogemDefocusWizard', 'CryogemGeneratedNumberWizard', 'CryogemMapWizard',
           'CryogemMaskWizard', 'CryogemPicksWizard', 'CryogemPixelSizeWizard', 'CryogemPreviewWizard',
           'CryogemSimulatedNumberWizard']
