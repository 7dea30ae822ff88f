"""What a screen costs, from its parts: decode, forward, update, compute, write; checked with 1, 2 and 4 workers.

    python benchmarks/cost_model.py                       # measure, predict, check; results/cost_model.json
    python benchmarks/cost_model.py --files 64            # quicker

Each part is measured alone, in processor time on one thread. Then four backbones are screened by 1, 2 and 4 processes,
and the processor time of all of them is set beside what the parts say.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from all import correlated, processor, turn_about

RESULTS = Path(__file__).parent / "results" / "cost_model.json"
SIZE, ZOO = 96, ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite0_random", "efficientnet_lite1_random")
WORKER = """
import sys, torch, warnings
warnings.simplefilter("ignore")
torch.set_num_threads(1)
from lightning_transfer.backbones import load_backbone
from lightning_transfer.data import ImageFolder
from lightning_transfer.screening.screen import screen
folder, output, size, *names = sys.argv[1:]
zoo = {name: load_backbone(name, input_size=int(size)) for name in names}
metrics = ["logme", "h_score", "h_score_shrunk"]
options = {"picture_memory": 0, "progress": False, "cache": False}
screen(zoo, ImageFolder(folder, batch_size=32), metrics, output_dir=output, **options)
"""


def write_pictures(folder, count):
    """A folder of JPEG pictures of 600 x 400 pixels in ten classes."""
    from PIL import Image
    from skimage.data import coffee

    picture = coffee()
    for number in range(count):
        path = Path(folder) / f"class_{number % 10}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture[:, ::-1] if number % 2 else picture).save(path, quality=90)


def parts():
    """Seconds of each part."""
    import torch
    from PIL import Image
    from skimage.data import coffee

    from lightning_transfer.backbones import load_backbone
    from lightning_transfer.metrics.registry import build_metrics

    buffer = io.BytesIO()
    Image.fromarray(coffee()).save(buffer, format="JPEG", quality=90)
    found = {"backbones": {}}
    inputs = torch.randint(256, (32, 3, SIZE, SIZE), dtype=torch.uint8)
    for name in ZOO:
        backbone = load_backbone(name, input_size=SIZE).eval()
        with torch.no_grad():
            seconds = turn_about({"forward": lambda: backbone(inputs)}, 4)["forward"] / len(inputs)  # noqa: B023
        found["backbones"][name] = {"forward": seconds, "flops": backbone.cost(measure=False).flops}
    decode = {"decode": lambda: [backbone.transform(buffer.getvalue()) for _ in range(20)]}
    found["decode"] = turn_about(decode, 3)["decode"] / 20
    features, labels = correlated(4096, 1280, 10)
    metrics = build_metrics(["logme", "h_score", "h_score_shrunk"])

    def update():
        metrics.reset()
        for batch in zip(features.split(32), labels.split(32), strict=True):
            metrics.update(*batch)

    found["update"] = turn_about({"update": update}, 3)["update"] / len(features)
    update()
    start = time.process_time()
    metrics.compute()
    found["compute"] = time.process_time() - start
    return found


def work(folder, names, workers):
    """Processor seconds of all processes that screen some backbones."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as output:
        shares = [names[worker::workers] for worker in range(workers)]
        arguments = [[sys.executable, "-c", WORKER, folder, output, str(SIZE), *share] for share in shares]
        processes = [subprocess.Popen(command) for command in arguments]
        assert [process.wait() for process in processes] == [0] * workers
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=192)
    arguments = parser.parse_args()
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found = parts()
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(folder, arguments.files)
        work(folder, list(ZOO[:1]), 1)  # so that libraries and weights lie in the machine's cache of files
        first, two = (min(work(folder, list(ZOO[:count]), 1) for _ in range(2)) for count in (1, 2))
        sample = [found["backbones"][name]["forward"] + found["decode"] + found["update"] for name in ZOO[:2]]
        # a process with its imports, and what a backbone takes to be built, counted, computed and written
        found["backbone_start"] = max(0.0, two - first - arguments.files * sample[1])
        found["start"] = first - found["backbone_start"] - arguments.files * sample[0]
        found["workers"] = {}
        for workers in (1, 2, 4):
            measured = work(folder, list(ZOO), workers)
            forward = sum(entry["forward"] for entry in found["backbones"].values())
            samples = arguments.files * (forward + len(ZOO) * (found["decode"] + found["update"]))
            predicted = samples + workers * found["start"] + len(ZOO) * found["backbone_start"]
            found["workers"][workers] = {"measured": measured, "predicted": predicted, "ratio": measured / predicted}
            print(f"{workers} workers: {measured:.1f} s of processors, predicted {predicted:.1f} s", flush=True)
    found |= {"processor": processor(), "torch": torch.__version__, "files": arguments.files, "pixels": SIZE}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
