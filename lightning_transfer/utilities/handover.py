"""Results of spawned processes, whose memory goes when they end: the first one leaves the merged states in a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from lightning_transfer._compat import mark_updated


def write_results(path: Path, metrics: MetricCollection | None, tensors: Mapping[str, Tensor], first: bool) -> None:
    """Merge the states of all processes and write them with further tensors; every process has to call it.

    Args:
        path: File to write.
        metrics: Metrics whose states are merged; they are of no further use afterwards.
        tensors: Whatever else is handed over.
        first: Whether this is the process that writes.
    """
    from safetensors.torch import save_file

    out = {f"tensor.{name}": tensor for name, tensor in tensors.items()}
    for number, metric in enumerate(metrics.values(copy_state=False) if metrics is not None else ()):
        metric.sync()
        for state, value in metric.metric_state.items():
            joined = torch.cat(value) if isinstance(value, list) and value else value
            if isinstance(joined, Tensor):
                out[f"metric.{number}.{state}"] = joined
    if first:
        save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in out.items()}, path)


def read_results(path: Path, metrics: MetricCollection | None) -> dict[str, Tensor]:
    """Put merged states into metrics of this process.

    Args:
        path: File of :func:`write_results`.
        metrics: The same metrics in the same order, without data; their states are replaced.

    Returns:
        The further tensors.
    """
    from safetensors.torch import load_file

    content = load_file(path)
    for number, metric in enumerate(metrics.values(copy_state=False) if metrics is not None else ()):
        metric.reset()
        for state, default in metric.metric_state.items():
            value = content.get(f"metric.{number}.{state}")
            if value is not None:
                setattr(metric, state, [value] if isinstance(default, list) else value)
        mark_updated(metric)
    return {name.removeprefix("tensor."): value for name, value in content.items() if name.startswith("tensor.")}
