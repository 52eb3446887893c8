"""How the tests run: on which device, and with how many examples of Hypothesis."""

import os
import sys

import pytest
from hypothesis import settings

import tinygrad_bn as tg
from tinygrad_bn import random_numbers

settings.register_profile("local", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_addoption(parser):
    parser.addoption(
        "--device",
        choices=("cpu", "double", "cuda"),
        default="cpu",
        help="where Tensors are made: on the CPU, on the test double of CuPy, or on a GPU",
    )


def pytest_configure(config):
    if config.getoption("--device") == "double":
        import double

        double.install()
    if config.getoption("--device") != "cpu":
        try:
            tg.set_default_device("cuda")
        except RuntimeError as error:
            raise pytest.UsageError(str(error)) from error
        sys.modules["numba"] = None  # the little that runs on the CPU runs without it here
        settings.register_profile("device", parent=settings(), max_examples=20)
        settings.load_profile("device")


@pytest.fixture
def cpu_only(request):
    """For a claim about NumPy arrays; the test is skipped on another device."""
    device = request.config.getoption("--device")
    if device != "cpu":
        pytest.skip(f"about NumPy arrays on the CPU; this run is on the {device}")


@pytest.fixture
def cupy():
    """The test double of CuPy, on whatever device the tests run: a machine with two GPUs."""
    import double

    was_installed = sys.modules.get("cupy") is double.cupy
    yield double.install()
    double.uninstall()
    random_numbers._keys.clear()  # which lie on the double
    if was_installed:
        double.install()


@pytest.fixture
def double_only(request):
    """For a claim about two devices; gives the module of the test double."""
    if request.config.getoption("--device") != "double":
        pytest.skip("about a second device; run with --device=double")
    import double

    return double


@pytest.fixture(params=["recorded", pytest.param("live", marks=pytest.mark.torch)])
def source(request):
    """Where PyTorch's answers come from: files, or, with `-m torch`, the PyTorch that is there."""
    return request.param
