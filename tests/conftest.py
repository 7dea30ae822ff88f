"""Settings of every test process, made before torch is imported."""

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["LIGHTNING_TRANSFER_CACHE"] = "off"  # tests of the cache name a folder

# New examples on every run at a developer's desk, the same ones in continuous integration.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")


TESTS = Path(__file__).parent
NUMERIC = (
    "functional",
    "metrics",
    "published",
    "relatedness",
    "utilities/test_linalg",
    "test_doctests",
    "test_studies",
)


def pytest_collection_modifyitems(items):
    """Mark the tests of values, which have to hold whatever the last bits of a sum are."""
    for item in items:
        if item.path.relative_to(TESTS).as_posix().startswith(NUMERIC):
            item.add_marker(pytest.mark.numeric)


@pytest.fixture(autouse=True)
def close_figures():
    """Leave no figure open for the next test."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def interrupts_arrive():
    """Processes that a shell starts in the background ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def in_process(tmp_path, monkeypatch):
    """Run jobs here: what a process costs to start is spent once, in the tests that need one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setenv("LIGHTNING_TRANSFER_ALLOCATOR", "system")
    return tmp_path


@pytest.fixture
def blobs():
    """Make two related tasks: Gaussian classes around corners, reference and target in different units."""

    import torch

    def make(num_reference=3, num_target=3, n_reference=60, n_target=45, width=4, noise=0.7, seed=0, gap=3.0):
        generator = torch.Generator().manual_seed(seed)
        y, t = torch.arange(n_reference) % num_reference, torch.arange(n_target) % num_target
        corners = gap * torch.randn(max(num_reference, num_target), width, generator=generator)
        z = corners[y] + noise * torch.randn(n_reference, width, generator=generator)
        x = corners[t] + noise * torch.randn(n_target, width, generator=generator)
        turn = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
        return z, y, 0.5 * x @ turn + 1, t

    return make
