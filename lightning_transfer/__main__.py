"""``python -m lightning_transfer`` is the command ``lightning-transfer``."""

from lightning_transfer.cli import main

main()
