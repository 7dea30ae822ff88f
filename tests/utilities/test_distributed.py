from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import atexit
from torch import distributed
from lightning_transfer.utilities.distributed import leave_group_at_exit

atexit.register(lambda: print("in a group at the end:", distributed.is_initialized()))
leave_group_at_exit()
leave_group_at_exit()  # once is enough
distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
print("in a group:", distributed.is_initialized())
"""


def test_a_process_ends_its_group_before_the_interpreter_goes():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if not line.startswith("[Gloo]")]  # older versions greet
    assert lines == ["in a group: True", "in a group at the end: False"]
