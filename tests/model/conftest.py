import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random inputs in every run."""
    torch.manual_seed(0)
