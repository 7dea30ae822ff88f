"""A screen without the cache of features, one that fills it, and those that find their features there, in one process.

    python benchmarks/cache.py
    python benchmarks/cache.py --pictures 2000 --backbones efficientnet_lite0 efficientnet_lite1 --json cache.json
    python benchmarks/cache.py --pictures 200 --backbones efficientnet_lite0 efficientnet_lite2 --native

The pictures are JPEGs of 320 x 240 pixels, cut from photographs. Prints the seconds of each screen and how many times
faster one over a warm cache is; scores of all of them have to be equal.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

from all import processor


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--backbones", nargs="+", default=["efficientnet_lite0", "efficientnet_lite0_random"])
    parser.add_argument("--native", action="store_true", help="EfficientNet-Lites at their own size, not at 112 pixels")
    parser.add_argument("--metrics", nargs="+", default=["default"])
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: on a busy machine")
    parser.add_argument("--json", type=Path, default=None)
    return parser.parse_args()


def write_pictures(folder: Path, count: int) -> None:
    import numpy as np
    from PIL import Image
    from skimage import data

    photographs = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    generator = np.random.default_rng(0)
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        top, left = (
            generator.integers(0, side - size + 1) for side, size in zip(photograph.shape, (240, 320), strict=False)
        )
        path = folder / f"class{number % len(photographs)}" / f"{number:05}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(photograph[top : top + 240, left : left + 320]).save(path, quality=90)


def native(name: str) -> dict[str, object]:
    variant, _, control = name.removeprefix("efficientnet_lite").partition("_")
    target = "lightning_transfer.backbones.EfficientNetLite"
    return {"_target_": target, "variant": int(variant), "pretrained": not control}


def main() -> None:
    arguments = parse()
    import warnings

    import torch

    from lightning_transfer import screen
    from lightning_transfer.cache import FeatureCache
    from lightning_transfer.data import ImageFolder

    warnings.simplefilter("ignore")
    clock = time.process_time if arguments.clock == "cpu" else time.perf_counter
    if arguments.clock == "cpu":
        torch.set_num_threads(1)
    networks = {name: native(name) if arguments.native else name for name in arguments.backbones}
    metrics = arguments.metrics[0] if len(arguments.metrics) == 1 else arguments.metrics
    with tempfile.TemporaryDirectory() as place:
        pictures = Path(place, "pictures")
        pictures.mkdir()
        write_pictures(pictures, arguments.pictures)
        cache = FeatureCache(Path(place, "cache"))

        def timed(used: FeatureCache | bool, max_samples: int | None = None) -> tuple[float, list[dict[str, float]]]:
            data = ImageFolder(pictures, val_fraction=0, test_fraction=0)
            start = clock()
            board = screen(networks, data, metrics, cache=used, trainer={"accelerator": "cpu"}, max_samples=max_samples)
            return clock() - start, [dict(row.scores) for row in board.rows]

        timed(FeatureCache(Path(place, "other")), max_samples=8)  # what a process does once
        seconds, scores = {}, {}
        for name in ("without", "filling", "warm", "warm again"):
            seconds[name], scores[name] = timed(False if name == "without" else cache)
        equal = all(value == scores["without"] for value in scores.values())
        size = cache.size()
    faster = seconds["without"] / min(seconds["warm"], seconds["warm again"])
    for name, value in seconds.items():
        print(f"{name:<12}{value:8.2f} s")
    print(f"a warm cache: {faster:.1f} times faster; filling it: {seconds['filling'] / seconds['without']:.3f} times")
    print(f"{size / 2**20:.2f} MiB on disk; scores equal to the last bit: {equal}")
    if arguments.json is not None:
        record = {
            "pictures": arguments.pictures,
            "backbones": arguments.backbones,
            "native": arguments.native,
            "metrics": arguments.metrics,
            "clock": arguments.clock,
            "seconds": seconds,
            "faster": faster,
            "bytes": size,
            "equal": equal,
            "machine": {
                "processors": os.cpu_count(),
                "threads": torch.get_num_threads(),
                "python": platform.python_version(),
                "torch": torch.__version__,
                "processor": processor(),
            },
        }
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
