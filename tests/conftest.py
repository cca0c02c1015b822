"""Where shared reference data lies, and the process-wide settings of the tests."""

import os
from pathlib import Path

# Before numpy is there: its products are small here, and pools of threads that wait for each other
# on busy cores are many times slower than one thread.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import pytest
import torch
from hypothesis import HealthCheck, settings
from threadpoolctl import threadpool_limits

import geodino  # noqa: F401  (installs the torchvision hook before anything imports timm)

# The same examples on every machine, and no limit in time: what fails once fails always.
settings.register_profile(
    "geodino", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("geodino")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def one_thread_per_test_process():
    """Small tensors: more threads only make two test processes fight for two cores."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real pixels beside the checkout; the test is skipped where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("needs the real tiles of ../shared/data, which are not part of the project")
    return folder


@pytest.fixture(scope="session")
def shared_golden() -> Path:
    """The folder of reference numbers beside the checkout; skipped where it is absent."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip("needs the reference numbers of ../shared/golden, not part of the project")
    return folder
