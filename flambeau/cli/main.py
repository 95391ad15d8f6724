"""The command `flambeau`: picks the subcommand. Each is a module of this package, loaded when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import sys

from flambeau.version import __version__

COMMANDS = {
    "run": "run a PyTorch program, unedited, on flambeau",
    "demo": "train a network on handwritten digits, with pictures",
    "bench": "measure flambeau against an installed PyTorch",
    "info": "show versions, hardware, and which kernels are in use",
    "doctor": "watch a program run and explain its gradients",
}


def usage() -> str:
    lines = ["usage: flambeau COMMAND [options]", ""]
    lines += [f"  {name:8}{text}" for name, text in available().items()]
    lines += ["", "flambeau COMMAND --help says more. flambeau --version prints the version."]
    return "\n".join(lines)


def available() -> dict[str, str]:
    """The commands whose modules are there."""
    return {
        name: text for name, text in COMMANDS.items() if importlib.util.find_spec(f"flambeau.cli.{name}") is not None
    }


def main(argv: list[str] | None = None) -> int:
    """Runs a command line and gives its exit status."""
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if args else 2
    if args[0] in ("-V", "--version"):
        print(f"flambeau {__version__}")
        return 0
    if args[0] not in available():
        print(f"flambeau: no command {args[0]!r}\n\n{usage()}", file=sys.stderr)
        return 2
    return importlib.import_module(f"flambeau.cli.{args[0]}").main(args[1:])
