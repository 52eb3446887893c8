"""Compiled kernels and threads: several that call, how many work, and the children of a process."""

import logging
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from tinygrad_bn.kernels import compiled, cpu_norm

pytestmark = pytest.mark.usefixtures("cpu_only")

LARGE = {  # shape and axes: each for other loops
    "images": ((8, 16, 40, 40), (0, 2, 3)),
    "samples": ((700, 200), (0,)),
    "rows": ((200, 700), (1,)),
}
WORK = """
import numpy as np
from tinygrad_bn.kernels import cpu_norm
x = np.random.default_rng(0).standard_normal((700, 200)).astype(np.float32)
def work():
    y, mu, var = cpu_norm.normalize(x, None, None, axes=(0,), eps=1e-5)
    return y.tobytes() + mu.tobytes() + var.tobytes()
"""


def work(name):
    """The bytes of all that the kernels make of a large array."""
    shape, axes = LARGE[name]
    random = np.random.default_rng(0)
    x, g = random.standard_normal((2, *shape)).astype(np.float32)
    options = {"axes": axes, "eps": 1e-5}
    outs = cpu_norm.normalize(x, None, None, **options)
    grads = cpu_norm.normalize_grads(
        (g, None, None), outs, x, None, None, needs=(True, False, False), **options
    )
    return b"".join(v.tobytes() for v in (*outs, grads[0]))


def run(code, **environment):
    """What a new interpreter prints, and what it writes to stderr."""
    answer = subprocess.run(
        [sys.executable, "-c", WORK + code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip(), answer.stderr


@pytest.fixture
def numba():
    return pytest.importorskip("numba")


def test_numba_is_not_imported_before_a_kernel_needs_it():
    out, _ = run("import tinygrad_bn, sys; print('numba' in sys.modules)")
    assert out == "False"


def test_several_threads_may_call_at_once(numba):
    alone = {name: work(name) for name in LARGE}
    found = []

    def call(name):
        for _ in range(5):
            found.append(work(name) == alone[name])

    callers = [threading.Thread(target=call, args=(name,)) for name in (*LARGE, *LARGE)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert found == [True] * 5 * 2 * len(LARGE)


def test_the_number_of_threads_changes_no_bit(numba):
    code = """
from tinygrad_bn import get_num_threads, set_num_threads
set_num_threads(1)
alone = work()
set_num_threads(2)
print(get_num_threads(), alone == work())
"""
    assert run(code, NUMBA_NUM_THREADS="2")[0] == "2 True"


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({"NUMBA_NUM_THREADS": "3", "OMP_NUM_THREADS": "2"}, "3"),
        ({"NUMBA_NUM_THREADS": "", "OMP_NUM_THREADS": "1"}, "1"),
    ],
)
def test_the_environment_says_how_many_threads_there_are(environment, threads):
    given = {k: v for k, v in environment.items() if v}
    code = "import os\n" + "".join(
        f"os.environ.pop({k!r}, None)\n" for k in environment if k not in given
    )
    code += "from tinygrad_bn.kernels.compiled import get_num_threads as n; print(n())"
    assert run(code, **given)[0] == threads


def test_a_wrong_number_in_the_environment_is_named(monkeypatch):
    monkeypatch.setenv("NUMBA_NUM_THREADS", "0")
    with pytest.raises(ValueError, match=r"NUMBA_NUM_THREADS: got '0', wants"):
        compiled.most_threads.__wrapped__()


@pytest.mark.parametrize("n", [0, -1, 10_000, 1.0, "2", True, None])
def test_a_wrong_number_of_threads_is_named(n):
    before = compiled.get_num_threads()
    with pytest.raises(ValueError, match=r"n: got .*, wants a whole number from 1 to"):
        compiled.set_num_threads(n)
    assert compiled.get_num_threads() == before


def test_one_line_in_the_log_says_that_numba_is_missing(monkeypatch, caplog):
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda name: None)
    with caplog.at_level(logging.DEBUG, "tinygrad_bn"):
        assert compiled.loops.__wrapped__("rows") is None
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert "numba is not installed" in caplog.text


COMPILE = """
from tinygrad_bn.kernels.compiled import loops
move = loops("running").move.alone
for dtype in (np.float32, np.float64):
    x = np.ones(2, dtype)
    move(x, x, x, x, 1.0, 0.1)
print(x)
"""


@pytest.fixture(scope="module")
def compiled_before(tmp_path_factory):
    """A folder with what numba compiled, and what was written to stderr then."""
    pytest.importorskip("numba")
    folder = tmp_path_factory.mktemp("numba")
    return folder, run(COMPILE, NUMBA_CACHE_DIR=str(folder))[1]


def test_compiling_is_announced_once(numba, compiled_before):
    folder, first = compiled_before
    _, second = run(COMPILE, NUMBA_CACHE_DIR=str(folder))
    assert first.count(compiled.ANNOUNCEMENT) == 1
    assert second == ""


NORMALIZE = """
import hashlib
import tinygrad_bn as tg
from tinygrad_bn import nn
rng = np.random.default_rng(0)
for layer, shape in ((nn.LayerNorm((8, 8)), (33, 8, 8)), (nn.BatchNorm2d(7), (33, 7, 8, 8))):
    x, g = (tg.tensor(rng.standard_normal(shape, np.float32)) for _ in range(2))
    y = layer(x.requires_grad_())
    y.backward(g)
    print(hashlib.sha256(y.detach().numpy().tobytes() + x.grad.numpy().tobytes()).hexdigest())
"""


def test_what_was_compiled_before_has_the_bits_of_what_is_compiled_now(numba, tmp_path):
    """A run that compiles, is stopped and resumed ends as one that did not stop."""
    first, said = run(NORMALIZE, NUMBA_CACHE_DIR=str(tmp_path), NUMBA_NUM_THREADS="1")
    second, _ = run(NORMALIZE, NUMBA_CACHE_DIR=str(tmp_path), NUMBA_NUM_THREADS="1")
    assert compiled.ANNOUNCEMENT in said
    assert first == second


def test_openblas_is_told_how_to_wait_unless_the_user_did(monkeypatch):
    show = "import os; print(os.environ['OPENBLAS_THREAD_TIMEOUT'])"
    monkeypatch.delenv("OPENBLAS_THREAD_TIMEOUT", raising=False)
    assert run(show)[0] == "14"
    assert run(show, OPENBLAS_THREAD_TIMEOUT="20")[0] == "20"


@pytest.mark.parametrize("files", ["*.nbi", "*.nbc"])
@pytest.mark.parametrize("left", [0, 30])
def test_damaged_files_are_named_and_compiled_anew(numba, compiled_before, tmp_path, files, left):
    folder = shutil.copytree(compiled_before[0], tmp_path / "numba")
    for file in folder.rglob(files):
        os.truncate(file, left)
    found, first = run(COMPILE, NUMBA_CACHE_DIR=str(folder))
    _, second = run(COMPILE, NUMBA_CACHE_DIR=str(folder))
    assert found == "[1. 1.]"
    assert first.count(f"files in {folder}") == 1
    assert second == ""


def test_a_full_disk_is_told_once(numba, tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"
    pytest.importorskip("resource")
    found, told = run(limit + COMPILE, NUMBA_CACHE_DIR=str(tmp_path))
    assert found == "[1. 1.]"
    assert told.count("numba cannot keep compiled kernels on disk (File too large)") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_works_after_its_parent_did(numba):
    code = """
import os
before = work()
child = os.fork()
if child == 0:
    os._exit(work() != before)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(code, NUMBA_NUM_THREADS="2")[0] == "0"


def test_processes_that_a_launcher_started_share_the_cores(monkeypatch):
    show = (
        "import os, tinygrad_bn as tg\n"
        "print(os.environ.get('OPENBLAS_NUM_THREADS'), tg.get_num_threads())"
    )
    cores = len(os.sched_getaffinity(0))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert run(show)[0] == f"None {cores}"
    half = max(cores // 2, 1)
    for launcher in ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE"):
        assert run(show, **{launcher: "2"})[0] == f"{half} {half}"
        assert run(show, **{launcher: str(2 * cores)})[0] == "1 1"
    assert run(show, MPI_LOCALNRANKS="2", OMP_NUM_THREADS=str(cores))[0] == f"None {cores}"
    assert run(show, MPI_LOCALNRANKS="2", NUMBA_NUM_THREADS=str(cores))[0] == f"{half} {cores}"
