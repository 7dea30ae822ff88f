"""A screen of six backbones over JPEGs against its parts: bare forward loops, one decoding, and each transform alone.

    python benchmarks/decode_once.py                     # 2000 files, six small timm networks, 2 workers, wall time
    python benchmarks/decode_once.py --clock cpu         # processor time of all processes, on a busy machine

The files are crops of the photographs in the wheels of scikit-image and scikit-learn. The parts are timed on the same
workers, in the same process, turn about with the screen; the whole also measures a screen that keeps no pictures.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import tempfile
import time
from pathlib import Path
from statistics import median


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--backbones",
        nargs="+",
        default=[
            "lcnet_050",
            "mobilenetv3_small_050",
            "ghostnet_050",
            "tinynet_e",
            "efficientvit_m0",
            "mobilenetv3_small_075",
        ],
    )
    parser.add_argument("--metrics", nargs="+", default=["default"])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--width", type=int, default=400)
    parser.add_argument("--height", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--only-kept", action="store_true", help="leave out the screen that keeps no pictures")
    parser.add_argument("--json", type=Path, default=None)
    return parser.parse_args()


def cpu_time() -> float:
    """Processor time of this process and of its workers that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)


def write_files(root: Path, count: int, size: tuple[int, int]) -> None:
    from importlib.resources import files

    import numpy as np
    from PIL import Image

    from lightning_transfer.data.photo_patches import _PICTURES

    generator = np.random.default_rng(0)
    pictures = {}
    for name, (package, file) in _PICTURES.items():
        picture = Image.open(files(package).joinpath(file)).convert("RGB")
        if picture.width > size[0] and picture.height > size[1]:
            pictures[name] = picture
    for number in range(count):
        name = list(pictures)[number % len(pictures)]
        picture = pictures[name]
        left, top = (int(generator.integers(0, room)) for room in np.subtract(picture.size, size))
        path = root / name / f"{number:05d}.jpg"
        path.parent.mkdir(exist_ok=True)
        picture.crop((left, top, left + size[0], top + size[1])).save(path, quality=90)


def main() -> None:
    arguments = parse()
    from lightning_transfer.utilities.allocator import tune_allocator

    tune_allocator()
    import warnings

    import torch
    from torch.utils.data import DataLoader

    from lightning_transfer import screen
    from lightning_transfer.backbones import load_backbone
    from lightning_transfer.data import ImageFolder
    from lightning_transfer.pictures import PreparingCollate, collate_pictures

    warnings.simplefilter("ignore")
    clock = cpu_time if arguments.clock == "cpu" else time.perf_counter
    if arguments.clock == "cpu":
        torch.set_num_threads(1)
    backbones = {name: load_backbone(f"timm/{name}", pretrained=False).eval() for name in arguments.backbones}

    def timed(run, *given) -> float:
        start = clock()
        run(*given)
        return clock() - start

    def read(dataset, collate) -> list:
        options = {"num_workers": arguments.workers, "prefetch_factor": 2 if arguments.workers else None}
        return list(DataLoader(dataset, arguments.batch_size, collate_fn=collate, **options))

    def forward(backbone, batches) -> None:
        with torch.no_grad():
            for batch in batches:
                backbone(batch["inputs"])

    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), arguments.files, (arguments.width, arguments.height))
        data = ImageFolder(
            folder, val_fraction=0, test_fraction=0, num_workers=arguments.workers, batch_size=arguments.batch_size
        )
        originals = data.train_dataset.inputs.originals()
        n = len(originals)
        decoded = [originals[index] for index in range(n)]
        parts: dict[str, list[float]] = {"decode": [], "screen": [], "screen, nothing kept": []}
        for name in backbones:
            parts |= {f"transform {name}": [], f"forward {name}": []}

        def screened(memory, **options) -> None:
            board = screen(
                backbones, data, arguments.metrics, picture_memory=memory, progress=False, cache=False, **options
            )
            assert not any(row.failed for row in board.rows), board

        screened(0, max_samples=8)  # what a process does once
        for repeat in range(arguments.repeats):
            if repeat % 2:
                parts["screen"].append(timed(screened, 4096))
            parts["decode"].append(timed(read, originals, len))
            for name, backbone in backbones.items():
                collate = PreparingCollate(collate_pictures, backbone.transform)
                start = clock()
                batches = read(decoded_samples(decoded, data.train_dataset.truth), collate)
                parts[f"transform {name}"].append(clock() - start)
                parts[f"forward {name}"].append(timed(forward, backbone, batches))
            if not repeat % 2:
                parts["screen"].append(timed(screened, 4096))
            if repeat == 0 and not arguments.only_kept:
                parts["screen, nothing kept"].append(timed(screened, 0))
    seconds = {name: median(values) for name, values in parts.items() if values}
    for name, value in seconds.items():
        print(f"{name:36s} {value:8.2f} s")
    whole = sum(value for name, value in seconds.items() if not name.startswith("screen"))
    ratio = seconds["screen"] / whole
    without = None if arguments.only_kept else seconds["screen, nothing kept"] / whole
    print(f"{n} files, {arguments.clock}: screen {seconds['screen']:.2f} s, parts {whole:.2f} s, ratio {ratio:.3f}")
    if without is not None:
        print(f"with nothing kept {without:.3f}")
    if arguments.json:
        settings = {key: value if not isinstance(value, Path) else str(value) for key, value in vars(arguments).items()}
        report = {
            "files": n, "settings": settings, "seconds": seconds, "parts_s": whole, "ratio": ratio,
            "ratio_nothing_kept": without, "torch": torch.__version__, "threads": torch.get_num_threads(),
            "machine": platform.processor() or platform.machine(),
        }  # fmt: skip
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def decoded_samples(pictures, labels):
    return [{"inputs": picture, "labels": label} for picture, label in zip(pictures, labels, strict=True)]


if __name__ == "__main__":
    main()
