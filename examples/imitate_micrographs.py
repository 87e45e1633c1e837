#!/usr/bin/env python3
"""Micrographs that look like yours, with every particle known: the workflow of the template, without a display.

    python examples/imitate_micrographs.py --map map.mrc --map-pixel-size 3.0 \\
        --micrographs 'micrographs/*.mrc' --pixel-size 3.0 --picks 'coordinates/*.star' --box 64

With Scipion's own installation: `scipion3 python examples/imitate_micrographs.py ...`.
"""

import argparse

from workflow import add_arguments, imitate, prepare_scipion


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    args = parser.parse_args()
    prepare_scipion(args.folder)
    workflow, _ = imitate(args)
    print(f'project: {workflow.project.path}   (open it: python -m scipion project {args.project})')


if __name__ == '__main__':
    main()
