"""Shared fixtures: one source of randomness, seeded for every test, and torch on one thread."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # the tensors are tiny: more threads only wait for one another

settings.register_profile("any machine", deadline=None)  # a busy one is no fault of the code
settings.load_profile("any machine")


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def real_root() -> Path:
    """The folder of the real sets; tests that ask for it are skipped where there is none."""
    root = os.environ.get("SEGEDU_DATA")
    if not root:
        pytest.skip("SEGEDU_DATA is not set")
    return Path(root)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
