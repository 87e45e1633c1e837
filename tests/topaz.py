"""Where the tests find Topaz: in `.topaz-venv` of the checkout, which `make test-all` makes."""

from pathlib import Path

import pytest

ENVIRONMENT = Path(__file__).resolve().parents[1] / '.topaz-venv'


def find_topaz() -> str:
    """Return the folder of the environment that topaz-em is installed in; skip the test where there is none."""
    if not (ENVIRONMENT / '.installed').exists():
        pytest.skip('topaz-em is not installed in .topaz-venv; make test-all brings it')
    return str(ENVIRONMENT)
