"""The program topaz of this Python: `python -m cryogem.evaluation.topaz_program train ...`.

Beside a CPU-only build of torch the installed program does not start: it imports torchvision, whose common build needs
what that build lacks.
"""

import importlib

from cryogem.evaluation.torchvision_operators import declare_torchvision_operators


def main() -> None:
    """Declare what torchvision needs, then be Topaz."""
    declare_torchvision_operators()
    importlib.import_module('topaz.main').main()


if __name__ == '__main__':
    main()
