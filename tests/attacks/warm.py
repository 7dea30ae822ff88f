"""Runs of the command line, each in a child process that a test may kill or interrupt at any moment.

Lines of standard input are JSON: what follows the name of the program. For each a child is forked; its number is
written, and then its exit code. A line ``"warm"`` before the words runs them here, so that the children begin with all
modules imported: their life is work and writing.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence

import torch

from lightning_transfer import cli


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code."""
    torch.manual_seed(0)  # networks have the same weights in every process
    try:
        cli.main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)


def serve() -> None:
    """Run what standard input asks for."""
    for line in sys.stdin:
        arguments = json.loads(line)
        if arguments[0] == "warm":
            print(f"@child 0\n@code {run(arguments[1:])}", flush=True)
            continue
        child = os.fork()
        if child == 0:
            code = 70
            try:
                code = run(arguments)
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            os._exit(code)
        print(f"@child {child}", flush=True)
        print(f"@code {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}", flush=True)


if __name__ == "__main__":
    serve()
