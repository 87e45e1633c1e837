"""Marks for pytest that do no harm where Scipion runs the tests without it."""

import importlib
import importlib.util
from typing import Any


def mark(name: str) -> Any:
    """Return the decorator `pytest.mark.NAME`, or one that changes nothing."""
    if importlib.util.find_spec('pytest') is None:
        return lambda test: test
    return getattr(importlib.import_module('pytest').mark, name)


slow, gui = mark('slow'), mark('gui')
