"""``python -m lightning_transfer`` is the command ``lightning-transfer``."""

import os
import sys

if sys.path[:1] in ([""], [os.getcwd()]):
    del sys.path[0]  # `python -m` puts the working directory first: no file that lies there stands in for a library

from lightning_transfer.cli import main

main()
