"""What tests do with the runs of ``warm.py``."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning_transfer.jobs.arguments import override

SCRIPT = Path(__file__).with_name("warm.py")
CONFIGS = Path(__file__).with_name("configs")
NETS = ("net4", "net6", "net8")
COMMON = ("--config-dir", str(CONFIGS))
SCREEN = ("screen", *COMMON, "target=digits", "target.max_samples=60", "metrics=[h_score]")
FINETUNE = ("finetune", *COMMON, "target=digits", "target.max_samples=60", "~reference")
RELATE = ("relate", *COMMON, "target=digits_0_4", "reference=digits_5_9", "max_samples=40")
SWEEP = ("-m", f"backbone={','.join(NETS)}")
SMALL = (*COMMON, "metrics=[h_score]", "trainer=cpu")
SELECT = ("select", *SMALL, "zoo=nets", "target=digits", "target.max_samples=60", "epochs=3", "budget=8 epochs")
STUDY = (
    "study", *SMALL, "zoo=pools", "targets=[digits]", "target_options.max_samples=60", "study.modes=[head]",
    "study.epochs=2", "study.seeds=1", "study.learning_rates=[1e-3]",
)  # fmt: skip
COMMANDS = {
    "screen": (*SCREEN, "zoo=nets"),
    "sweep": (*SCREEN, *SWEEP),
    "relate": (*RELATE, "backbone=net4"),
    "sweep of relate": (*RELATE, *SWEEP),
    "finetune": (*FINETUNE, "backbone=net4", "epochs=3"),
    "select": SELECT,
    "study": STUDY,
    "sweep of finetune": (*FINETUNE, *SWEEP, "epochs=1"),
}


def into(kind: str, folder: Path) -> list[str]:
    """The words of a command that writes to a folder."""
    return [*COMMANDS[kind], override(f"hydra.{'sweep' if 'sweep' in kind else 'run'}.dir", str(folder))]


class Runs:
    """The process that forks the runs."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        environment["PYTHONUNBUFFERED"] = "1"
        self.warm: set[str] = set()
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, env=environment,
        )  # fmt: skip

    def heat(self, kind: str, folder: Path) -> None:
        """Run a kind of command once where all others begin."""
        if kind not in self.warm:
            self.warm.add(kind)
            code, shown = self.run(["warm", *into(kind, folder)])
            assert code == 0, shown

    def run(self, arguments: Sequence[str], stop: Callable[[int], None] | None = None) -> tuple[int, str]:
        """Run a command.

        Args:
            arguments: What follows the name of the program.
            stop: Is given the number of the process, in a thread beside it.

        Returns:
            Its exit code, negative if a signal ended it, and what it printed.
        """
        print(json.dumps(list(arguments)), file=self.process.stdin, flush=True)
        child, _ = self._read("@child ")
        if stop is not None:
            threading.Thread(target=stop, args=(child,), daemon=True).start()
        return self._read("@code ")

    def _read(self, mark: str) -> tuple[int, str]:
        shown = []
        for line in self.process.stdout:
            if line.startswith(mark):
                return int(line.removeprefix(mark)), "".join(shown)
            shown.append(line)
        raise AssertionError("".join(shown))

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def after(seconds: float, number: int = signal.SIGKILL) -> Callable[[int], None]:
    """Send a signal after some time."""

    def stop(child: int) -> None:
        time.sleep(seconds)
        _send(child, number)

    return stop


def once_there(folder: Path, pattern: str, number: int) -> Callable[[int], None]:
    """Send a signal as soon as a file is there, and the lock that was held meanwhile is given up.

    Python ignores an interrupt that comes while an object such as a lock is deleted.
    """

    def stop(child: int) -> None:
        while not any(folder.glob(pattern)):
            time.sleep(0.002)
        time.sleep(0.02)
        _send(child, number)

    return stop


def _send(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)
