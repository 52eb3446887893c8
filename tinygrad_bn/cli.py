"""The commands: `python -m tinygrad_bn tour`, `ops`, `compare`."""

import argparse
import inspect
import io
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from . import ops
from .backend import get_default_device
from .graph import Op
from .tour import compare_batch_norms, tour


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status. Bad input is one sentence on stderr, and status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console without σ gets a ?, not an error
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        get_default_device()
    except ValueError as error:
        parser.error(f"TINYGRAD_BN_DEVICE: {error}")
    try:
        if arguments.version:
            print(f"tinygrad_bn {metadata.version('tinygrad_bn')}")
        elif arguments.command is None:
            parser.print_help()
        else:
            arguments.command(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, `head` say, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tinygrad_bn", description="An autograd engine that speaks batch norm.")
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

    command = commands.add_parser("ops", help="the table of derivatives")
    command.set_defaults(command=_ops)

    command = commands.add_parser("compare", help="composed batch norm against fused")
    command.set_defaults(command=lambda _: compare_batch_norms())
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}, wants a whole number ≥ 0")
    return int(text)


def _tour(arguments: argparse.Namespace) -> None:
    try:
        tour(arguments.out, arguments.seed, arguments.quick)
    except FileExistsError:
        arguments.parser.error(f"--out: {arguments.out} is a file, wants a folder")
    except OSError as error:
        arguments.parser.error(f"--out: cannot write to {arguments.out}: {error.strerror}")


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
