"""The test double of CuPy: it has CuPy's names, and does what CuPy 14.2 does."""

import collections
import copy
import json
import subprocess
import sys
import threading
import types
import weakref
from pathlib import Path

import double
import numpy as np
import pytest

MAKER = Path(__file__).parent.parent / "data" / "make_cupy_signatures.py"
SNAPSHOT = json.loads(MAKER.with_name("cupy_signatures.json").read_text())
HOST = np.arange(6, dtype=np.float32).reshape(2, 3)


class Foreign:
    def __radd__(self, other):
        return "the right operand's"


def handle(self, ufunc, method, *inputs, **kwargs):
    return f"{ufunc.__name__} {method} of {len(inputs)} inputs, {sorted(kwargs)}"


OPERANDS = {
    "host": HOST,
    "plain": Foreign(),
    "equal": type("Equal", (Foreign,), {"__array_priority__": 100})(),
    "prior": type("Prior", (Foreign,), {"__array_priority__": 100.5})(),
    "refusing": type("Refusing", (Foreign,), {"__array_ufunc__": None})(),
    "handling": type("Handling", (Foreign,), {"__array_ufunc__": handle})(),
}


def expressions(text):
    return [expression for line in text.strip().split("\n") for expression in line.split("; ")]


def evaluated(expression, cupy, x):
    return eval(expression, {"cupy": cupy, "np": np, "x": x, **OPERANDS})


@pytest.fixture(autouse=True)
def cupy():
    """The double of a machine with two GPUs; a run that has it installed gets it back."""
    was_installed = sys.modules.get("cupy") is double.cupy
    yield double.install()
    double.uninstall()
    if was_installed:
        double.install()


@pytest.fixture
def x(cupy):
    array = cupy.asarray(HOST)
    double.stats.clear()
    return array


# --- The same as CuPy, where that is installed ----------------------------------------------------
# CuPy can be imported without a GPU.  There its arrays can look at memory of the host, and do what
# needs no kernel: bind calls, refuse operands, make views.

WITHOUT_A_KERNEL = expressions("""
x.shape; x.dtype; x.strides; x.nbytes; x.itemsize; x.size; x.ndim; len(x); x.base; x.device.id
x.T; x[0].T; x[0]; x[0, 0]; x[-1, 1:]; x[::-1, ::2]; x[..., None]; x[:, 1]; x[()]; x[2]; x[0, 0, 0]
x.reshape(3, 2); x.reshape((-1,)); x.reshape(7); x.ravel(); x[:, 0].reshape(2, 1); x.view()
x.transpose(1, 0); x.swapaxes(0, 1); x[:1].squeeze(); x.astype(np.float32, copy=False)
x.diagonal(); x[0].base is x; x[0][0].base is x; x.T.base is x; x.reshape(3, 2)[0].base is x
cupy.expand_dims(x, 1); cupy.moveaxis(x, 0, 1); cupy.broadcast_to(x, (4, 2, 3)); cupy.split(x, 3, 1)
cupy.ascontiguousarray(x) is x; cupy.ravel(x).base is x; np.transpose(x); np.reshape(x, (3, 2))
x.flags.c_contiguous; x.T.flags.f_contiguous; x.flags.owndata; x[0].flags.owndata
x.flags.writeable; x.setflags; x.__index__; x.__contains__; x.foo; hash(x); len(x[0, 0])
np.asarray(x); memoryview(x); cupy.foo; cupy.vecdot; cupy.float32 is np.float32; cupy.newaxis
cupy.pi; cupy.ndim(x); cupy.shape(x); cupy.size(x); cupy.result_type(x, np.float64)
cupy.result_type(x, 1.0); cupy.finfo(np.float16).max; cupy.issubdtype(x.dtype, cupy.floating)
x.sum(where=x); x.mean(where=x); x.var(correction=1); x.max(initial=0); x.get(1, 2, 3, 4, 5)
x.astype("f8", casting="safe"); cupy.sum(x, where=x); cupy.var(x, correction=1); cupy.sum()
cupy.zeros(3, device=0); cupy.clip(x, min=0); cupy.add(x, x, where=True); cupy.exp(x, x, x)
cupy.add(x, x, order="C"); cupy.add(x); cupy.add.reduce(x, where=x); cupy.maximum.reduce(x)
cupy.multiply.at(x, 0, 1); np.sum(x, where=x); np.add.reduce(x, where=True)
x + handling; x - handling; x @ handling; x < handling; x + refusing; x + prior
x.__add__(refusing); x.__pow__(refusing); x.__lt__(prior); x.__array_priority__
x.__setitem__(0, host[0]); x.__setitem__(0, [1.0, 2.0, 3.0]); cupy.concatenate(x, 0, x, 1)
cupy.get_array_module(x) is cupy; cupy.get_array_module(host) is np; cupy.asnumpy(host) is host
cupy.from_dlpack(host); cupy.__version__; cupy.can_cast("f4", "f8"); cupy.arange(3, device=0)
x.take(0, mode="clip"); x**handling; cupy.sum(x, axis=(0, 0))
x[0, 0].sum(axis=-1); x[0, 0].argmax(0); cupy.max(x[0, 0], -1); x[0, 0].mean(0)
np.amin(x[0, 0], axis=-1); x[0, 0].prod(axis=0)
""")


def outcome(expression, cupy, x):
    """What comes of it, in words that do not tell CuPy from its double."""
    try:
        value = evaluated(expression, cupy, x)
    except Exception as error:
        return f"raises {type(error).__name__}"
    if isinstance(value, list):
        return f"{len(value)} arrays of {value[0].shape}"
    if isinstance(value, cupy.ndarray):
        layout = f"{value.shape} {value.strides} {value.flags.c_contiguous}"
        return f"{value.dtype} array {layout}, view: {value.base is x}, itself: {value is x}"
    return repr(value)


def outcomes_in_cupy(cupy):
    memory = cupy.cuda.UnownedMemory(HOST.ctypes.data, HOST.nbytes, HOST, 0)
    x = cupy.ndarray(HOST.shape, HOST.dtype, cupy.cuda.MemoryPointer(memory, 0))
    return {expression: outcome(expression, cupy, x) for expression in WITHOUT_A_KERNEL}


def of_real_cupy(expression):
    """Its value in a Python without the double; a skip where that finds no CuPy, or another."""
    folders = [str(Path(__file__).parent), str(MAKER.parent.parent)]
    setup = f"import json, runpy, sys, cupy; sys.path[:0] = {folders}"
    code = f"{setup}; import test_double; print(json.dumps([cupy.__version__, {expression}]))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if "No module named 'cupy'" in process.stderr:
        pytest.skip("CuPy is not installed")
    assert process.returncode == 0, process.stderr
    version, value = json.loads(process.stdout)
    if version != SNAPSHOT["cupy_version"]:
        pytest.skip(f"CuPy {version} is installed, and the snapshot of another")
    return value


def test_the_snapshot_is_what_the_installed_cupy_says():
    assert of_real_cupy(f"runpy.run_path({str(MAKER)!r})['snapshot']()") == SNAPSHOT


@pytest.fixture(scope="module")
def outcomes_of_cupy():
    return of_real_cupy("test_double.outcomes_in_cupy(cupy)")


@pytest.mark.parametrize("expression", WITHOUT_A_KERNEL)
def test_cupy_does_the_same(expression, outcomes_of_cupy, cupy, x):
    assert outcome(expression, cupy, x) == outcomes_of_cupy[expression]


def test_arrays_have_no_attribute_that_cupys_lack():
    own = set(vars(double.ndarray)) - set(vars(Foreign)) - {"_block", "_memory", "_device_id"}
    assert own <= set(SNAPSHOT["ndarray"]["names"])


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("x + handling", "add __call__ of 2 inputs, []"),
        ("np.add(x, handling, out=x)", "add __call__ of 2 inputs, ['out']"),
        ("x + refusing", "the right operand's"),
        ("x + prior", "the right operand's"),
    ],
)
def test_operators_leave_the_answer_to_a_class_that_asks_for_it(expression, answer, cupy, x):
    assert evaluated(expression, cupy, x) == answer


REFUSED = expressions("""
x + host; host + x; x * np.array(2.0); np.array(2.0) * x; x @ host; x < host; x.__iadd__(host)
x.__itruediv__(np.array(2.0)); cupy.add(x, host); cupy.exp(x, out=host); cupy.exp(host)
cupy.sum(host); cupy.where(x > 1, host, x); cupy.where(host > 1, x, x); cupy.copyto(x, host)
cupy.concatenate([x, host]); cupy.stack([host]); cupy.full((2,), np.array(1.0)); x.dot(host)
cupy.einsum("ij,ij", x, host); cupy.add.at(x, 0, host); x + plain; x + equal; x.__iadd__(handling)
x.sum(out=host); x.clip(host, 1); cupy.ascontiguousarray(host); x.__setitem__(0, np.array(1.0))
cupy.sum([1.0, 2.0]); cupy.add(x, [1.0, 2.0, 3.0]); cupy.add(x, None); cupy.add(x, handling)
np.add(x, host); np.add(host, host, out=x); np.concatenate([x, host]); np.where(x > 1, host, 0)
np.asarray(x); np.array(x, copy=None); cupy.asarray([x, host])
""")


@pytest.mark.parametrize("expression", REFUSED)
def test_host_arrays_and_unknown_classes_are_refused(expression, cupy, x):
    with pytest.raises(TypeError):
        evaluated(expression, cupy, x)


def test_a_host_array_is_copied_silently_where_an_index_array_selects(cupy, x):
    x[cupy.asarray([1])] = HOST[:1]
    assert double.stats["h2d"] == 2
    assert x.tolist() == [[0, 1, 2], [0, 1, 2]]


SAME_AS_NUMPY = expressions("""
xp.absolute(x); xp.abs(x); xp.add(x, y); xp.subtract(x, y); xp.multiply(x, y); xp.divide(x, y)
xp.true_divide(x, y); xp.negative(x); xp.power(x, 3); xp.exp(x); xp.log(y); xp.log1p(y); xp.sqrt(y)
xp.tanh(x); xp.maximum(x, y); xp.minimum(x, 1.0); xp.where(x > y, x, 0.0); xp.sign(x); xp.isnan(x)
xp.isfinite(x); xp.isinf(x); xp.logical_and(x, y); xp.logical_or(x, y); xp.logical_not(x)
xp.less(x, y); xp.greater_equal(x, y); xp.equal(x, y); xp.argmax(x, axis=1); xp.argmin(x)
xp.sum(x, axis=0); xp.sum(x); xp.mean(x, axis=(0, 1), keepdims=True); xp.var(x, ddof=1); xp.max(x)
xp.min(x, axis=-1); xp.amax(x); xp.amin(x, keepdims=True); xp.prod(y); xp.reshape(x, (3, 2))
xp.transpose(x); xp.swapaxes(x, 0, 1); xp.expand_dims(x, 0); xp.squeeze(x[:1]); xp.ravel(x.T)
xp.broadcast_to(x, (4, 2, 3)); xp.moveaxis(x, 0, 1); xp.ascontiguousarray(x.T)
xp.concatenate([x, y], axis=1); xp.stack([x, y]); xp.split(x, 3, axis=1)[1]; xp.matmul(x, y.T)
xp.dot(x, y.T); xp.einsum("ij,kj->ik", x, y); xp.zeros((2, 3)); xp.ones(3, dtype=xp.int32)
xp.full((2,), 7.0); xp.zeros_like(x); xp.ones_like(x); xp.full_like(x, 3); xp.arange(2, 9, 3)
xp.eye(3); xp.take(x, xp.asarray([1, 0]), axis=1); xp.take_along_axis(x, xp.argsort(x, axis=1), 1)
xp.sort(x, axis=1); xp.argsort(x[1]); xp.cumsum(x, axis=1); xp.nonzero(x)[1]; xp.clip(x, 1, 4)
xp.linspace(0, 1, 5); xp.tril(x); xp.repeat(x, 2, axis=0); xp.unique(x); xp.linalg.norm(x)
xp.add.reduce(x); xp.multiply.reduce(x, axis=1); xp.isclose(x, y); xp.allclose(x, y)
xp.modf(x)[0]; xp.add(x, y, out=x); x.sum(axis=1); x.mean(); x.max(0); x.std(axis=1); x.clip(1, 4)
x.cumsum(); x.argmax(axis=0); x.reshape(-1); x.flatten(); x.all(); x.any(); x.astype(xp.float16)
x + y; 2 - x; x * 2.0; x / y; 1 / y; x // y; x % y; x**2; 2**x; -x; +x; abs(-x); x @ y.T; x < y
x == y; x != 3; x >= 2.0; ~(x > y); (x > 1) & (y > 1); (x > 1) | (y > 1); (x > 1) ^ (y > 1)
np.float64(2) * x; x * np.float64(2); x + np.float32(1); x[0, 0]; x[::-1, 1]; x[..., None]
x[x > 2]; x[xp.asarray([1, 1])]; x[:, xp.asarray([2, 0])]; x[x[:, 0] > 0, 1]
np.exp(x); np.sum(x, axis=1); np.concatenate([x, y]); np.linalg.norm(x); np.maximum(x, 2)
""")


@pytest.mark.parametrize("expression", SAME_AS_NUMPY)
def test_values_dtypes_and_shapes_are_numpys(expression, cupy):
    y = HOST[::-1] + 1
    wanted = eval(expression, {"xp": np, "np": np, "x": HOST.copy(), "y": y})
    device = {"xp": cupy, "np": np, "x": cupy.asarray(HOST), "y": cupy.asarray(y)}
    got = eval(expression, device)
    assert isinstance(got, cupy.ndarray)  # 0-d where NumPy gives a scalar
    np.testing.assert_array_equal(got.get(), np.asarray(wanted), strict=True)


def test_in_place_operators_and_copyto_write_into_the_array(cupy, x):
    y = x
    y += 1
    y *= cupy.asarray(HOST)
    y -= x[0]
    cupy.copyto(x[0], 7.0)
    assert y is x
    assert x.tolist() == [[7, 7, 7], [12, 18, 24]]


def test_a_ufunc_gives_c_order_whatever_the_order_of_its_operands(cupy, x):
    assert np.add(HOST.T, HOST.T).flags.f_contiguous
    assert cupy.add(x.T, x.T).flags.c_contiguous
    assert cupy.where((x > 1).T, x.T, x.T).flags.c_contiguous


def test_views_share_memory_and_copies_do_not(cupy, x):
    released = weakref.ref(cupy.zeros(3))
    assert released() is None
    x[0][1:][...] = 9
    assert x.tolist()[0] == [0, 9, 9]
    assert x[0].data.ptr == x.data.ptr
    for other in (copy.copy(x), copy.deepcopy(x), x.copy(), cupy.array(x)):
        assert other.data.ptr != x.data.ptr
        assert other.tolist() == x.tolist()


EVENTS = """
d2h sync: float(x[0, 0]); int(x[0, 0]); bool(x[0, 0]); complex(x[0, 0]); x[0, 0].item(); x.tolist()
d2h sync: x.get(); cupy.asnumpy(x); repr(x); str(x); f"{x[0, 0]:.2f}"; x.tobytes()
d2h: x.get(blocking=False)
h2d: cupy.asarray(host); cupy.array([1.0]); cupy.asarray([[0]]); cupy.asarray(host, dtype="f8")
h2d kernel: x[[0, 1]]; x[:, np.array([0])]; x.take([0]); cupy.take(x, np.array([0])); x[(0,), 1]
h2d kernel: x.__setitem__([0], x[0])
sync kernel kernel: x[x > 1]; cupy.nonzero(x > 1); cupy.where(x > 1); x.__setitem__(x > 1, x[0, 0])
sync kernel: cupy.unique(x); cupy.flatnonzero(x); x.nonzero(); np.argwhere(x)
kernel: x + 1; x.sum(); x.copy(); x.argmax(); x @ x.T; cupy.zeros(3); x.fill(1); x.astype("f8")
kernel: x.__setitem__(0, 1); x.__iadd__(1); cupy.concatenate([x, x]); cupy.where(x, x, x)
kernel: cupy.array(x); cupy.asarray(1.0); x.T.reshape(-1); cupy.ascontiguousarray(x.T)
: x.T; x[0]; x[0, 0]; x.reshape(-1); cupy.asarray(x); cupy.empty(3); x.shape; x.device; x.base
: cupy.from_dlpack(x); cupy.broadcast_to(x, (4, 2, 3)); cupy.split(x, 3, 1)
"""


@pytest.mark.parametrize("line", EVENTS.strip().split("\n"))
def test_events_are_counted(line, cupy, x):
    events, _, listed = line.partition(": ")
    for expression in expressions(listed):
        double.stats.clear()
        evaluated(expression, cupy, x)
        assert double.stats == collections.Counter(events.split()), expression


def test_a_forbidden_event_raises_and_names_itself(cupy, x):
    with double.forbid("h2d", "d2h", "sync"):
        y = (x @ x.T + 1).sum()
        with double.forbid("sync"):
            pass
        with pytest.raises(double.ForbiddenTransfer, match="d2h: a copy to the host"):
            float(y)
        with pytest.raises(double.ForbiddenTransfer, match="h2d: array"):
            cupy.asarray(HOST)
        with pytest.raises(double.ForbiddenTransfer, match="sync: nonzero"):
            cupy.nonzero(x)
        with pytest.raises(double.ForbiddenTransfer, match="sync: a boolean mask"):
            x[cupy.equal(x, 1)]
    assert float(y) == (HOST @ HOST.T + 1).sum()
    with pytest.raises(AssertionError), double.forbid("h2D"):
        pass


def test_index_arrays_wrap_around_and_integers_do_not(cupy, x):
    assert x[cupy.asarray([2, -1]), cupy.asarray([3, 5])].tolist() == [0, 5]
    assert x[None, ..., cupy.asarray([4])].tolist() == [[[1], [4]]]
    assert cupy.take(x, cupy.asarray([7])).tolist() == [1]
    with pytest.raises(IndexError):
        x[2]


def test_empty_arrays_are_poisoned(cupy, x):
    assert cupy.isnan(cupy.empty((2, 3), np.float16)).all()
    assert cupy.isnan(cupy.empty_like(x)).all()
    assert (cupy.empty(3, np.int32) == np.iinfo(np.int32).max).all()


def test_only_some_ufuncs_have_at_and_reduce(cupy, x):
    import cupyx

    cupy.add.at(x, cupy.asarray([0, 0]), 1.0)
    cupyx.scatter_add(x, (cupy.asarray([1, 1]), 0), cupy.asarray([1.0, 2.0]))
    assert x.tolist() == [[2, 3, 4], [6, 4, 5]]
    with pytest.raises(NotImplementedError, match=r"`cupy_multiply\.at` is not supported yet"):
        cupy.multiply.at(x, cupy.asarray([0]), 1.0)
    with pytest.raises(NotImplementedError, match=r"`cupy_maximum\.reduce` is not supported yet"):
        cupy.maximum.reduce(x)
    with pytest.raises(NotImplementedError, match=r"CuPy lacks cupy\.ElementwiseKernel"):
        cupy.ElementwiseKernel("", "")


def test_a_generator_gives_the_same_numbers_for_the_same_seed(cupy):
    one, two = (cupy.random.default_rng(3) for _ in range(2))
    assert one.random((2, 3), dtype=np.float32).dtype == np.float32
    two.random((2, 3), dtype=np.float32)
    assert one.standard_normal(4).tolist() == two.standard_normal(4).tolist()
    assert one.standard_normal().shape == ()


def test_an_array_stays_on_the_device_that_was_current_when_it_was_made(cupy, x):
    with cupy.cuda.Device(1):
        far = cupy.asarray(HOST)
        assert (far + 1).device.id == 1
        assert cupy.asarray(x).device.id == 1
    assert (x.device.id, far.device.id, far[0].device.id, (x + 1).device.id) == (0, 1, 1, 0)
    assert far.device == cupy.cuda.Device(1)
    assert far.tolist() == HOST.tolist()


def test_a_kernel_reaches_no_other_device(cupy, x):
    with cupy.cuda.Device(1):
        far = cupy.asarray(HOST)
        with pytest.raises(ValueError, match="on device 0, the current one is 1"):
            x + far
    with pytest.raises(ValueError, match="on device 1, the current one is 0"):
        far.sum()
    with pytest.raises(ValueError, match="on device 1, the current one is 0"):
        x[0] = far[0]


def test_the_current_device_belongs_to_the_thread(cupy):
    found = []
    with cupy.cuda.Device(1):
        thread = threading.Thread(target=lambda: found.append(cupy.zeros(1).device.id))
        thread.start()
        thread.join()
    assert found == [0]


def test_dlpack_shares_memory_on_the_device(cupy, x):
    with cupy.cuda.Device(1):
        far = cupy.zeros(3)
    methods = {name: getattr(far, name) for name in ("__dlpack__", "__dlpack_device__")}
    imported = cupy.from_dlpack(types.SimpleNamespace(**methods))
    assert far.__dlpack_device__() == (2, 1)
    assert imported.device.id == 1
    assert imported.data.ptr == far.data.ptr
    with pytest.raises((ValueError, RuntimeError)):
        np.from_dlpack(x)


def test_the_number_of_devices_can_be_chosen():
    double.stats["sync"] += 1
    assert double.install(devices=1).cuda.runtime.getDeviceCount() == 1
    assert not double.stats
    without = double.install(devices=0)
    assert not without.cuda.is_available()
    for use in (without.cuda.runtime.getDeviceCount, lambda: without.zeros(3)):
        with pytest.raises(RuntimeError, match="cudaErrorNoDevice"):
            use()


def test_uninstall_restores_what_was_there(monkeypatch):
    double.uninstall()
    earlier = types.ModuleType("cupy")
    monkeypatch.setitem(sys.modules, "cupy", earlier)
    monkeypatch.setitem(sys.modules, "cupy.other", earlier)
    double.install()
    import cupy.random

    assert cupy.ndarray is double.ndarray
    assert "cupy.other" not in sys.modules
    double.uninstall()
    assert sys.modules["cupy"] is sys.modules["cupy.other"] is earlier
    assert "cupy.random" not in sys.modules
