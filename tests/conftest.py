"""What all tests share."""

import pytest
import torch


@pytest.fixture(autouse=True, scope='session')
def _one_thread() -> None:
    """Images of tests are tiny: threads would cost more than they give."""
    torch.set_num_threads(1)
