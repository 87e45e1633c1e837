"""What all tests share."""

import pytest
import torch


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Begin every test, and the fixtures made for it, with the same random numbers, whatever has run before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope='session')
def _one_thread() -> None:
    """Images of tests are tiny: threads would cost more than they give."""
    torch.set_num_threads(1)
