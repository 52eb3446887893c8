"""State dicts go to PyTorch and come from it, as files of safetensors, with the same outputs.

PyTorch's files and answers are recorded in golden/ by golden/make_torch.py, so that no PyTorch is
needed here; where it is installed, `pytest -m torch` holds the same tests against it live, and lets
it read our files.
"""

import numpy as np
import pytest
from golden.interop_models import MODELS, train
from golden_cases import answer
from helpers import host

import tinygrad_bn as tg
from tinygrad_bn import nn
from tinygrad_bn.nn.files import read_safetensors, write_safetensors

every_model = pytest.mark.parametrize("name", MODELS)

# What a model is made of without a state; a new layer belongs here, or into a model.
STATELESS = {
    *("GELU", "LeakyReLU", "LogSoftmax", "ReLU", "Sigmoid", "Softmax", "Softplus", "Tanh"),
    *("AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AvgPool1d", "AvgPool2d"),
    *("AvgPool3d", "MaxPool1d", "MaxPool2d", "MaxPool3d", "Dropout", "Flatten", "Identity"),
    *("KLDivLoss", "L1Loss", "MSELoss", "SmoothL1Loss", "Module"),
}


def built(name):
    """Our model, every entry of whose state is another than PyTorch's."""
    model = MODELS[name][0](tg)
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data += 7
    return model


def arrays_of(model):
    return {key: host(value) for key, value in model.state_dict().items()}


def assert_same(ours, theirs):
    """Within a millionth of the largest value; of float64, twelve digits of it."""
    ours, theirs = host(ours), host(theirs)
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    bound = 1e-12 if theirs.dtype == np.float64 else 1e-6
    size = max(1.0, np.abs(theirs).max(initial=0.0))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound * size)


def assert_same_state(ours, theirs):
    """The same names, dtypes, shapes and bits."""
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert (ours[key].dtype, ours[key].shape) == (value.dtype, value.shape)
        assert ours[key].tobytes() == value.tobytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@every_model
def test_our_model_loads_pytorchs_file_and_gives_its_outputs(name, source, path):
    case, data = answer(f"interop/{name}", source)
    path.write_bytes(data["file"].tobytes())
    model = built(name)
    assert list(model.state_dict()) == case["state_dict_keys"]
    assert nn.load_safetensors(model, path) == ([], [])
    x = tg.tensor(data["input"])
    assert_same(model.eval()(x).detach(), data["evaluated"])
    assert_same(model.train()(x).detach(), data["trained"])
    for key, buffer in model.named_buffers():
        if key != "scratch":  # which is in no file
            assert_same(buffer, data[f"after/{key}"])


@every_model
def test_our_file_of_that_model_has_pytorchs_entries_bit_by_bit(name, source, path):
    case, data = answer(f"interop/{name}", source)
    path.write_bytes(data["file"].tobytes())
    theirs, model = read_safetensors(path), built(name)
    nn.load_safetensors(model, path)
    nn.save_safetensors(model, path)
    ours = read_safetensors(path)
    assert ours.keys() == set(case["state_dict_keys"])
    # PyTorch writes a tied parameter under one of its names, and we under each.
    again = {key: theirs["embedding.weight"] for key in ours.keys() - theirs.keys()}
    assert_same_state(ours, theirs | again)
    assert list(again) == (["head.weight"] if name == "tokens" else [])


@pytest.mark.torch
@every_model
def test_pytorchs_model_loads_our_file_and_gives_our_outputs(name, path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from safetensors.torch import load_file

    build, shape = MODELS[name]
    ours, theirs = build(tg), build(torch)
    random = np.random.default_rng(0)
    is_tokens, dtype = name == "tokens", next(ours.parameters()).dtype
    *batches, x = (
        random.integers(0, 11, shape) if is_tokens else random.standard_normal(shape).astype(dtype)
        for _ in range(4)
    )
    train(tg, ours, [tg.tensor(batch) for batch in batches])
    nn.save_safetensors(ours, path)
    theirs.load_state_dict(load_file(path))
    with torch.no_grad():
        for model in (theirs.eval(), theirs.train()):
            output = ours.train(model.training)(tg.tensor(x)).detach()
            assert_same(output, model(torch.tensor(x)).numpy())
    after = arrays_of(ours)
    for key, value in theirs.state_dict().items():
        assert_same(after[key], value.numpy())


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_files_of_other_dtypes_go_both_ways(dtype, path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from safetensors.torch import load_file, save_file

    theirs = torch.nn.BatchNorm1d(5).to(getattr(torch, dtype))
    state = {
        key: torch.randn(value.shape).to(value.dtype) for key, value in theirs.state_dict().items()
    }
    save_file(state, path)
    arrays, layer = read_safetensors(path), nn.BatchNorm1d(5)
    nn.load_safetensors(layer, path)  # float32, as our norms are beside inputs in half
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(host(value), state[key].to(torch.float32).numpy())
    write_safetensors(path, arrays)
    for key, value in load_file(path).items():
        assert value.dtype == state[key].dtype
        assert torch.equal(value, state[key])


@pytest.mark.torch
def test_a_tied_parameter_in_pytorchs_readers(path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from safetensors.torch import load_file, load_model

    nn.save_safetensors(MODELS["tokens"][0](tg), path)
    model = MODELS["tokens"][0](torch)
    model.load_state_dict(load_file(path))  # strict: it wants every name
    assert load_model(model, path, strict=False) == (set(), ["head.weight"])  # it wants one name


def test_the_models_have_every_layer_with_a_state():
    covered = {type(m).__name__ for build, _ in MODELS.values() for m in build(tg).modules()}
    layers = {
        name
        for name in nn.__all__
        if isinstance(getattr(nn, name), type) and issubclass(getattr(nn, name), nn.Module)
    }
    assert layers - covered - STATELESS == {"SyncBatchNorm"}  # whose state is a BatchNorm's


@pytest.mark.usefixtures("cpu_only")
@every_model
def test_the_functions_of_safetensors_numpy_do_as_they_are(name, path):
    from safetensors import numpy as safetensors

    model, other = built(name), MODELS[name][0](tg)
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    safetensors.save_file(state, path)
    other.load_state_dict(safetensors.load_file(path))
    assert_same_state(arrays_of(other), state)


def test_another_models_file_lists_every_difference_and_loads_nothing(path):
    nn.save_safetensors(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(5), nn.Linear(4, 2)), path)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(2, 4, 1))
    before = arrays_of(model)
    with pytest.raises(RuntimeError) as caught:
        nn.load_safetensors(model, path)
    assert str(caught.value).replace(" on cuda:0", "").splitlines() == [
        f"{path}: load_state_dict of Sequential:",
        "  missing 3.weight",
        "  missing 3.bias",
        "  unexpected 2.bias",
        "  unexpected 2.weight",
        *(
            f"  misshapen 1.{key}: got float32[5], wants float32[4]"
            for key in ("bias", "running_mean", "running_var", "weight")
        ),
    ]
    assert_same_state(arrays_of(model), before)


def test_keys_that_differ_are_passed_over_if_not_strict(path):
    first, second = nn.Linear(2, 3, bias=False), nn.Linear(2, 3)
    second.register_buffer("scale", tg.ones(1))
    nn.save_safetensors(second, path)
    assert nn.load_safetensors(first, path, strict=False) == ([], ["bias", "scale"])
    assert_same_state(arrays_of(first), {"weight": arrays_of(second)["weight"]})


@pytest.mark.parametrize("kept", ["embedding.weight", "head.weight"])
def test_one_name_of_a_tied_parameter_is_enough_whichever_it_is(kept, path):
    model, other = built("tokens"), MODELS["tokens"][0](tg)
    state = arrays_of(model)
    written = {
        k: v for k, v in state.items() if k == kept or not k.endswith(("g.weight", "d.weight"))
    }
    write_safetensors(path, written)
    assert len(written) == len(state) - 1
    nn.load_safetensors(other, path)
    assert_same_state(arrays_of(other), state)
    del written[kept]
    write_safetensors(path, written)
    with pytest.raises(RuntimeError, match=r"missing embedding.weight\n  missing head.weight$"):
        nn.load_safetensors(other, path)
