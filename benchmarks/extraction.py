"""Extraction and scoring of a whole screen against a bare forward loop over the same batches, in one process.

    python benchmarks/extraction.py                       # zoo efficientnet_lite, target photo_patches, default scores
    python benchmarks/extraction.py --input-size 224 --metrics all --json extraction.json

Both sides run every backbone of the zoo over the same loader, turn about, and the medians of the repeats are compared.
Set `MALLOC_MMAP_THRESHOLD_` and `MALLOC_TRIM_THRESHOLD_` to 4294967296 before Python starts to see the effect of the
allocator; `--allocator system` leaves out the settings that the command line applies by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from statistics import median


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--backbones", nargs="+", default=[f"efficientnet_lite{v}{r}" for r in ("", "_random") for v in range(3)]
    )
    parser.add_argument("--metrics", nargs="+", default=["default"])
    parser.add_argument("--input-size", type=int, default=112)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--max-samples", type=int, default=None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="cpu: of one thread, on a busy machine"
    )
    parser.add_argument("--allocator", choices=["tuned", "system"], default="tuned")
    parser.add_argument("--json", type=Path, default=None)
    return parser.parse_args()


def bare(backbone, loader) -> None:
    import torch

    backbone.eval()
    with torch.no_grad():
        for batch in loader:
            backbone(batch["inputs"])


def scored(backbone, data, names, clock) -> dict[str, float]:
    from lightning_transfer.extraction import extract
    from lightning_transfer.metrics.registry import build_metrics

    start = clock()
    result = extract(
        backbone, data, build_metrics(names, task=data.task), trainer={"accelerator": "cpu"}, progress=False
    )
    passed = clock()
    result.metrics.compute()
    end = clock()
    return {"pass": passed - start, "compute": end - passed, "total": end - start}


def main() -> None:
    arguments = parse()
    if arguments.allocator == "tuned":
        from lightning_transfer.utilities.allocator import tune_allocator

        tune_allocator()
    import warnings

    import torch

    from lightning_transfer.backbones import load_backbone
    from lightning_transfer.data import PhotoPatches

    warnings.simplefilter("ignore")
    clock = time.process_time if arguments.clock == "cpu" else time.perf_counter
    if arguments.clock == "cpu":
        torch.set_num_threads(1)
    elif arguments.threads:
        torch.set_num_threads(arguments.threads)
    data = PhotoPatches(batch_size=arguments.batch_size, max_samples=arguments.max_samples)
    loader = data.split_dataloader("train")
    n = len(loader.dataset)
    rows = []
    for name in arguments.backbones:
        backbone = load_backbone(name, input_size=arguments.input_size)
        bare(backbone, [next(iter(loader))])
        scored(backbone, PhotoPatches(max_samples=100), arguments.metrics, clock)
        loop, screen = [], []
        for repeat in range(arguments.repeats):
            for side in (0, 1) if repeat % 2 == 0 else (1, 0):
                if side == 0:
                    start = clock()
                    bare(backbone, loader)
                    loop.append(clock() - start)
                else:
                    screen.append(scored(backbone, data, arguments.metrics, clock))
        row = {"backbone": name, "bare_loop_s": median(loop)}
        row |= {f"{part}_s": median(entry[part] for entry in screen) for part in ("pass", "compute", "total")}
        row["ratio"] = row["total_s"] / row["bare_loop_s"]
        rows.append(row)
        print("  ".join(f"{key} {value:.3f}" if isinstance(value, float) else value for key, value in row.items()))
    whole = {key: sum(row[key] for row in rows) for key in ("bare_loop_s", "pass_s", "compute_s", "total_s")}
    ratio = whole["total_s"] / whole["bare_loop_s"]
    print(f"whole screen, {n} images at {arguments.input_size} pixels, {torch.get_num_threads()} threads: ", end="")
    print(f"{whole['total_s']:.2f} s against {whole['bare_loop_s']:.2f} s, ratio {ratio:.3f}")
    if arguments.json:
        settings = {key: value if not isinstance(value, Path) else str(value) for key, value in vars(arguments).items()}
        report = {
            "images": n, "settings": settings, "rows": rows, "whole": whole, "ratio": ratio, "torch": torch.__version__,
            "threads": torch.get_num_threads(), "machine": platform.processor() or platform.machine(),
            "malloc": {key: os.environ[key] for key in sorted(os.environ) if key.startswith("MALLOC_")},
        }  # fmt: skip
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
