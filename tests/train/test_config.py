"""What a training run is told: by flags, by TOML, and what is refused."""

import argparse
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_bn.train.config import FIELDS, Config, add_flags, as_toml, read_config


def by_flags(*flags):
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_flags(parser)
    return vars(parser.parse_args(flags))


def test_flags_and_toml_say_the_same(tmp_path):
    told = {"data": "csv", "path": "a.csv", "lr": 0.02, "batch_size": 7, "flip": True}
    flags = "--data csv --path a.csv --lr 0.02 --batch-size 7 --flip"
    assert by_flags(*flags.split()) == told
    (tmp_path / "c.toml").write_text(
        'data = "csv"\npath = "a.csv"\nlr = 2e-2\nbatch_size = 7\nflip = true\n'
    )
    assert read_config(tmp_path / "c.toml") == told


def test_a_flag_can_take_back_what_the_file_says():
    assert by_flags("--no-flip") == {"flip": False}


def test_every_field_is_a_flag():
    parser = argparse.ArgumentParser()
    add_flags(parser)
    flags = {action.dest for action in parser._actions} - {"help"}
    assert flags == set(FIELDS)


@given(path=st.none() | st.text(st.characters(exclude_categories=["Cs"])), lr=st.floats(1e-300, 9))
def test_the_file_of_a_run_gives_the_run_back(tmp_path_factory, path, lr):
    config = Config("csv", path=path, target=path, lr=lr, flip=True)
    file = tmp_path_factory.mktemp("run") / "config.toml"
    file.write_text(as_toml(config), encoding="utf-8", newline="")
    assert Config(**read_config(file)) == config


@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.1), ("adam", 1e-3), ("adamw", 1e-3)])
def test_the_learning_rate_depends_on_the_optimizer_unless_it_is_given(optimizer, lr):
    assert Config("disc", optimizer=optimizer).filled().lr == lr
    assert Config("disc", optimizer=optimizer, lr=0.5).filled().lr == 0.5
    assert "lr" not in as_toml(Config("disc", optimizer=optimizer))  # so that another may follow


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": None}, "data: got None, wants one of disc, moons, digits"),
        ({"data": "imagenet"}, "data: got 'imagenet', wants one of disc"),
        ({"epochs": 0}, "epochs: got 0, wants a whole number ≥ 1"),
        ({"epochs": 2.0}, "epochs: got 2.0, wants a whole number"),
        ({"epochs": True}, "epochs: got True, wants a whole number"),
        ({"epochs": "3"}, "epochs: got '3', wants a whole number"),
        ({"flip": 1}, "flip: got 1, wants true or false"),
        ({"path": 3}, "path: got 3, wants text"),
        ({"lr": "fast"}, "lr: got 'fast', wants a number"),
        ({"lr": 0}, "lr: got 0, wants a number above 0"),
        ({"lr": float("nan")}, "lr: got nan, wants a number"),
        ({"lr": float("inf")}, "lr: got inf, wants a number"),
        ({"momentum": 1.0}, r"momentum: got 1.0, wants a number in \[0, 1\)"),
        ({"validation": -0.1}, r"validation: got -0.1, wants a number in \[0, 1\)"),
        ({"dropout": 1.0}, r"dropout: got 1.0, wants a number in \[0, 1\)"),
        ({"weight_decay": -1.0}, "weight_decay: got -1.0, wants a number ≥ 0"),
        ({"seed": -1}, "seed: got -1, wants a whole number ≥ 0"),
        ({"width": 0}, "width: got 0, wants a whole number ≥ 1"),
        ({"keep": 0}, "keep: got 0, wants a whole number ≥ 1"),
        ({"model": "vgg"}, "model: got 'vgg', wants one of mlp, convnet, resnet"),
        ({"schedule": "linear"}, "schedule: got 'linear', wants one of constant, cosine, step"),
        ({"patience": 3, "validation": 0.0}, "patience: wants validation data"),
    ],
)
def test_what_is_wrong_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**{"data": "disc"} | settings)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"epoch = 3", "unknown key 'epoch'; did you mean epochs"),
        (b"[run]\nepochs = 3", "unknown key 'run'; wants some of data, path"),
        (b"epochs = ", "Invalid value"),
        (b"epochs = 1\nepochs = 2", "Cannot overwrite"),
        (b"\xff\xfe", "can't decode byte"),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path, content, message):
    (tmp_path / "c.toml").write_bytes(content)
    with pytest.raises(ValueError, match=rf"c\.toml: .*{message}"):
        read_config(tmp_path / "c.toml")


def test_every_field_says_what_it_is():
    assert [f.name for f in dataclasses.fields(Config) if not f.metadata["help"]] == []
