"""The commands: `python -m tinygrad_bn tour`, `train`, `draw`, `ops`, `compare`, …"""

import argparse
import contextlib
import dataclasses
import importlib
import inspect
import io
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from . import ops
from .backend import get_default_device, module_on
from .diagram import NOTATIONS, THEMES, VIEWS, draw
from .diagram.batch_norm import worked_example
from .distributed import RankError, communicator, init, processes
from .distributed.agreement import all_or_none, from_rank_0
from .distributed.mpi import told_rank
from .graph import Tensor
from .primitive import Op
from .recording import tracing
from .scalar import Scalar
from .tour import tour
from .tour.comparison import compare_batch_norms
from .train import training
from .train.comparison import compare_runs
from .train.config import FIELDS, Config, add_flags, read_config
from .train.progress import say

_EXAMPLE = "batch-norm"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status. Bad input is one sentence on stderr, and status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console without σ gets a ?, not an error
    parser, status = _parser(), 0
    arguments = parser.parse_args(argv)
    try:
        get_default_device()
    except ValueError as error:
        parser.error(str(error))
    try:
        if arguments.version:
            print(f"tinygrad_bn {metadata.version('tinygrad_bn')}")
        elif arguments.command is None:
            parser.print_help()
        else:
            status = arguments.command(arguments) or 0
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except OSError as error:  # of stdout: its reader, `head` say, has enough, or its disk is full
        if not isinstance(error, BrokenPipeError):
            print(f"tinygrad-bn: {error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return status or 1
    return status


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message}\n")

    def parse_args(self, *arguments, **options):
        """All ranks of mpiexec read the same command line, and one says what is wrong with it."""
        with contextlib.ExitStack() as silent:
            if told_rank():
                silent.enter_context(contextlib.redirect_stderr(io.StringIO()))
                silent.enter_context(contextlib.redirect_stdout(io.StringIO()))
            return super().parse_args(*arguments, **options)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tinygrad-bn", description="An autograd engine that speaks batch norm.")
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="command")

    command = commands.add_parser("tour", help="what batch norm buys, measured, as one page")
    command.add_argument("--seed", type=_seed, default=0, metavar="N", help="0, 1, 2, … (0)")
    command.add_argument(
        "--out", type=Path, default=Path("out"), metavar="DIR", help="where the page goes (out)"
    )
    command.add_argument(
        "--quick", action="store_true", help="seconds instead of a minute: fewer networks, epochs"
    )
    command.set_defaults(command=_tour, parser=command)

    command = commands.add_parser(
        "train",
        help="a small network on a data set",
        description="Train, and leave a folder: settings, checkpoints, metrics, a report.",
    )
    where = command.add_argument_group("the run")
    where.add_argument(
        "--config", type=Path, metavar="FILE", help="settings in TOML; flags go before"
    )
    where.add_argument(
        "--out", type=Path, metavar="DIR", help="a new folder (runs/DATA-MODEL-NORM)"
    )
    where.add_argument(
        "--resume",
        type=Path,
        metavar="DIR",
        help="go on with the run there (to --epochs, if given, with the schedule for so many)",
    )
    where.add_argument(
        "--timeout",
        type=_seconds,
        default=300.0,
        metavar="S",
        help="under mpiexec: seconds that a rank waits for another before all end (300)",
    )
    add_flags(command.add_argument_group("settings, also keys of the TOML file"))
    command.set_defaults(command=_train, parser=command)

    command = commands.add_parser("compare-runs", help="training runs drawn together, as one page")
    command.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folders of runs")
    command.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("compare.html"),
        metavar="FILE",
        help="(compare.html)",
    )
    command.set_defaults(command=_compare_runs, parser=command)

    command = commands.add_parser(
        "draw", help="a picture of a backward pass: of batch norm, or of a function of yours"
    )
    command.add_argument(
        "target",
        help=f"{_EXAMPLE}, or module:function, which takes nothing and returns what to draw",
    )
    command.add_argument("--view", choices=VIEWS, help="ops, or collapsed for a big graph")
    command.add_argument("--notation", choices=NOTATIONS, default="ioffe", help="(ioffe)")
    command.add_argument("--theme", choices=THEMES, default="auto", help="(auto)")
    command.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help=".svg .html .dot .png .pdf (TARGET.svg)"
    )
    command.set_defaults(command=_draw, parser=command)

    command = commands.add_parser("ops", help="the table of derivatives")
    command.set_defaults(command=_ops)

    command = commands.add_parser("compare", help="composed batch norm against fused")
    command.set_defaults(command=_compare, parser=command)
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}, wants a whole number ≥ 0")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}, wants a number of seconds above 0")
    return seconds


def _check_device(arguments: argparse.Namespace) -> None:
    """End with one sentence if the machine lacks the device that TINYGRAD_BN_DEVICE names."""
    try:
        module_on(get_default_device())
    except RuntimeError as error:
        arguments.parser.error(str(error))


def _compare(arguments: argparse.Namespace) -> None:
    _check_device(arguments)
    compare_batch_norms()


def _tour(arguments: argparse.Namespace) -> None:
    _check_device(arguments)
    try:
        tour(arguments.out, arguments.seed, arguments.quick)
    except FileExistsError:
        arguments.parser.error(f"--out: {arguments.out} is a file, wants a folder")
    except OSError as error:
        arguments.parser.error(f"--out: cannot write to {arguments.out}: {error.strerror}")


def _train(arguments: argparse.Namespace) -> int:
    with _in_a_sentence(arguments):
        comm = init(timeout=arguments.timeout)
        with all_or_none(comm):
            if comm.size > 1:
                say(f"{comm}: {processes(comm)}")
            settings = json.loads(from_rank_0(comm, lambda: _settings(arguments)))
            if arguments.resume:
                return training.resume(arguments.resume, settings.get("epochs"))
            return training.start(Config(**settings), arguments.out)


def _settings(arguments: argparse.Namespace) -> bytes:
    """What the flags, and the file that they name, say, as JSON."""
    given = dict(vars(arguments))
    settings = {name: given[name] for name in FIELDS if name in given}
    if arguments.resume and (arguments.config or arguments.out or {*settings} - {"epochs"}):
        raise ValueError("--resume: takes --epochs, and else the settings that the run has")
    if arguments.config:
        settings = read_config(arguments.config) | settings
    if not arguments.resume:
        settings = dataclasses.asdict(Config(**settings))
    return json.dumps(settings).encode()


def _compare_runs(arguments: argparse.Namespace) -> None:
    with _in_a_sentence(arguments):
        compare_runs(arguments.folders, arguments.out)


@contextlib.contextmanager
def _in_a_sentence(arguments: argparse.Namespace) -> Iterator[None]:
    """End with one sentence on what goes wrong in the block, but for a reader that has enough."""
    try:
        yield
    except BrokenPipeError:
        raise
    except RankError as problem:  # which all ranks know
        if communicator().rank:
            sys.exit(2)
        arguments.parser.error(str(problem))
    except MemoryError as problem:
        arguments.parser.error(f"not enough memory: {problem}")
    except OSError as problem:
        named = f"{problem.filename}: {problem.strerror}" if problem.filename else str(problem)
        arguments.parser.error(named)
    except (RuntimeError, ValueError) as problem:
        arguments.parser.error(str(problem))


def _draw(arguments: argparse.Namespace) -> None:
    target, error = arguments.target, arguments.parser.error
    path = arguments.out or Path(target.replace(":", ".") + ".svg")
    try:
        output = _recorded(target, arguments.view)
        print(draw(output, arguments.view, arguments.notation, arguments.theme).save(path))
    except OSError as problem:
        error(f"--out: cannot write {path}: {problem.strerror}")
    except (RuntimeError, TypeError, ValueError) as problem:
        error(f"{target}: {problem}")


def _recorded(target: str, view: str | None) -> Tensor | Scalar | Sequence[Tensor]:
    """What to draw. A ValueError says why there is nothing."""
    if target == _EXAMPLE:
        return worked_example("fused" if view == "fused" else "composed")
    module, _, name = target.partition(":")
    if not (name and all(part.isidentifier() for part in module.split("."))):
        raise ValueError(f"wants {_EXAMPLE} or module:function")
    sys.path.insert(0, os.getcwd())  # where the user's module is
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as problem:
        raise ValueError(problem) from problem
    try:
        with tracing():
            return function()
    except Exception as problem:
        raise ValueError(f"{type(problem).__name__}: {problem}") from problem


def _ops(_: argparse.Namespace) -> None:
    """Print, op by op, the statement that defines it: label, gradient rules, forward."""
    shown = set()
    for name in ops.__all__:
        definition = getattr(ops, name)
        if not isinstance(definition, Op) or definition.name in shown:
            continue  # a second name of the same op
        shown.add(definition.name)
        for rule in (*definition.vjps, definition.joint):
            if inspect.isfunction(rule) and rule.__name__ != "<lambda>" and rule not in shown:
                shown.add(rule)
                print(inspect.getsource(rule))
        print(inspect.getsource(definition.forward))
