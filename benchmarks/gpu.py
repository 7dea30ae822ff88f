"""Speed on one GPU: updates, computes, extraction and options of the pass, beside what they cannot do without.

    python benchmarks/gpu.py                      # under ten minutes; figures go to benchmarks/results/gpu.json
    python benchmarks/gpu.py updates extraction   # some parts, the others keep their figures

Both sides of a ratio run in one process, turn about; what counts is the smallest time of the repeats, with the GPU
waited for at both ends (updates and products: of ten in a row, as a pass makes them). Without a GPU, `--device cpu`
runs small sizes to try the script.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results" / "gpu.json"
OPTIONS: argparse.Namespace


def wait():
    """Let the GPU finish."""
    if OPTIONS.device == "cuda":
        torch.cuda.synchronize()


def turn_about(sides, repeats, row=1):
    """Smallest seconds of each of several functions, which take turns; of one call in a row of some."""
    best = dict.fromkeys(sides, float("inf"))
    for function in sides.values():
        function()
    for turn in range(repeats):
        for name in list(sides)[:: (-1) ** turn]:
            wait()
            start = time.perf_counter()
            for _ in range(row):
                sides[name]()
            wait()
            best[name] = min(best[name], (time.perf_counter() - start) / row)
    return best


def show(what, best, goal=None):
    """Print a ratio and return its line."""
    (_, ours), (_, other) = best.items()
    print(
        f"{what}: {ours:.5g} s / {other:.5g} s = {ours / other:.2f}" + (f" (goal {goal:g})" if goal else ""), flush=True
    )
    return {"what": what, "ours": ours, "other": other, "ratio": ours / other, "goal": goal}


def updates():
    """Updates of the moment-based scores, without a single wait for the device."""
    from lightning_transfer.metrics.registry import build_metrics

    n, d, classes = (4096, 2048, 1000) if OPTIONS.device == "cuda" else (2048, 64, 10)
    lines = []
    names = ("logme", "h_score", "h_score_shrunk")
    for groups in (1, 16):  # partial sums: without and with error bars
        for dtype, goal in ((torch.float32, 1.3), (torch.bfloat16, None), (torch.float16, None)):
            features = torch.randn(n, d, device=OPTIONS.device).to(dtype)
            labels = torch.randint(classes, (n,), device=OPTIONS.device)
            options = {name: {"num_classes": classes, "jackknife_groups": groups} for name in names}
            metrics = build_metrics(names, options=options).to(OPTIONS.device)
            for metric in metrics.values(copy_state=False):
                metric.defer_checks = True
            exact = features.double()
            update, double, half = (
                lambda: metrics.update(features, labels),  # noqa: B023
                lambda: exact.T @ exact,  # noqa: B023
                lambda: features.T @ features,  # noqa: B023
            )
            what = f"update, {n} x {d}, {dtype}, {groups} partial sums"
            best = turn_about({"ours": update, "other": double}, 10, row=10)
            lines.append(show(f"{what} / one float64 product", best, goal))
            if dtype != torch.float32:
                best = turn_about({"ours": update, "other": half}, 10, row=10)
                lines.append(show(f"{what} / one product of that type", best, 4.0))
            if OPTIONS.device == "cuda":
                torch.cuda.set_sync_debug_mode("error")  # raises where the GPU is waited for
                try:
                    metrics.update(features, labels)
                finally:
                    torch.cuda.set_sync_debug_mode("default")
                print("no wait in the update", flush=True)
    return lines


def computes():
    """Computes of the moment-based scores beside an eigendecomposition."""
    from lightning_transfer.metrics.registry import build_metrics

    n, d, classes = (8192, 2048, 1000) if OPTIONS.device == "cuda" else (2048, 64, 10)
    features = torch.randn(n, d, device=OPTIONS.device)
    labels = torch.randint(classes, (n,), device=OPTIONS.device)
    metrics = build_metrics(["logme", "h_score", "h_score_shrunk"]).to(OPTIONS.device)
    gram = features.double().T @ features.double()
    best = {"ours": float("inf"), "other": float("inf")}
    for turn in range(6):
        metrics.update(features, labels)
        for name in list(best)[:: (-1) ** turn]:
            wait()
            start = time.perf_counter()
            metrics.compute() if name == "ours" else torch.linalg.eigh(gram)
            wait()
            if turn:
                best[name] = min(best[name], time.perf_counter() - start)
    return [show(f"computes, d = {d} / one eigendecomposition", best, 1.3)]


def agreement():
    """Every score of the default table on the GPU beside the CPU."""
    from lightning_transfer.metrics.registry import build_metrics

    n, d, classes = (8192, 512, 50) if OPTIONS.device == "cuda" else (2048, 64, 10)
    labels = torch.randint(classes, (n,))
    features = 10 + torch.randn(classes, d)[labels] + torch.randn(n, d) @ (torch.randn(d, d) / d**0.5)
    lines = []
    for dtype in (torch.float32, torch.bfloat16):
        values = []
        for device in ("cpu", OPTIONS.device):
            metrics = build_metrics(["logme", "h_score", "h_score_shrunk", "nleep", "gbc", "transrate", "sfda"]).to(
                device
            )
            for batch in zip(features.to(dtype).split(1000), labels.split(1000), strict=True):
                metrics.update(features=batch[0].to(device), labels=batch[1].to(device))
            values.append({name: float(value) for name, value in metrics.compute().items()})
        worst = max(abs(values[1][name] - value) / max(abs(value), 1e-12) for name, value in values[0].items())
        print(f"largest relative difference to the CPU, {dtype}: {worst:.1e}", flush=True)
        lines.append({"what": f"largest relative difference to the CPU, {dtype}", "ours": worst, "goal": 1e-6})
    return lines


def _backbones():
    import timm
    import torchvision

    from lightning_transfer.backbones import ModuleBackbone

    size = 224 if OPTIONS.device == "cuda" else 32
    resnet = torchvision.models.resnet50(weights=None)
    vit = timm.create_model("vit_small_patch16_224", pretrained=False, img_size=size)
    for name, network, head in (("ResNet-50", resnet, "fc"), ("ViT-S", vit, "head")):
        yield name, size, ModuleBackbone(network, input_shape=(3, size, size), head=head, name=name)


def extraction():
    """A pass with the default scores beside a bare loop, bf16, data on the device."""
    from lightning_transfer.extraction import extract
    from lightning_transfer.metrics.registry import build_metrics

    n, batch = (4096, 256) if OPTIONS.device == "cuda" else (8, 4)
    lines = []
    for name, size, backbone in _backbones():
        pictures = torch.rand(batch, 3, size, size, device=OPTIONS.device)
        labels = [torch.randint(100, (batch,), device=OPTIONS.device) for _ in range(n // batch)]
        loader = [(pictures, some) for some in labels]
        network = backbone.to(OPTIONS.device).eval()

        def bare():
            with torch.no_grad(), torch.autocast(OPTIONS.device, torch.bfloat16):
                for inputs, _ in loader:  # noqa: B023
                    network(inputs)  # noqa: B023

        trainer = {"accelerator": "gpu" if OPTIONS.device == "cuda" else "cpu", "precision": "bf16-mixed"}
        inside = [float("inf")]

        def scored(compute, trainer=trainer, inside=inside):
            metrics = build_metrics(["logme", "h_score", "leep", "nce"])
            found = extract(network, loader, metrics, trainer=trainer, progress=False)  # noqa: B023
            inside[0] = min(inside[0], found.seconds)
            if compute:
                found.metrics.compute()

        what = f"{name}, {n} pictures of {size} pixels"
        best = turn_about({"ours": lambda: scored(False), "other": bare}, 6)
        lines.append(show(f"pass, first batch to last / bare loop, {what}", {**best, "ours": inside[0]}, 1.05))
        lines.append(show(f"pass with its start and end / bare loop, {what}", best, 1.05))
        best = turn_about({"ours": lambda: scored(True), "other": bare}, 2)
        lines.append(show(f"pass and computed scores / bare loop, {what}", best))
    return lines


class _Pictures(torch.utils.data.Dataset):
    """JPEG files in memory, decoded and cut when they are asked for."""

    def __init__(self, count, size):
        import io

        import numpy as np
        from PIL import Image

        self.files, self.count, self.size = [], count, size
        for seed in range(16):
            coarse = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
            file = io.BytesIO()
            Image.fromarray(coarse).resize((320, 240)).save(file, "JPEG", quality=90)
            self.files.append(file.getvalue())

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        import io

        import numpy as np
        from PIL import Image

        picture = Image.open(io.BytesIO(self.files[index % len(self.files)])).resize((self.size, self.size))
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1), index % 100


def workers():
    """Passes of two backbones through loader workers beside bare loops whose workers live as long."""
    from lightning_transfer.extraction import extract
    from lightning_transfer.metrics.registry import build_metrics
    from lightning_transfer.workers import SharedReading

    n, batch, count = (8192, 256, 4) if OPTIONS.device == "cuda" else (8, 4, 1)
    networks = [(name, backbone.to(OPTIONS.device).eval()) for name, _, backbone in _backbones()]
    pictures = _Pictures(n, 224 if OPTIONS.device == "cuda" else 32)
    trainer = {"accelerator": "gpu" if OPTIONS.device == "cuda" else "cpu", "precision": "bf16-mixed"}

    def make(**options):
        pinned = OPTIONS.device == "cuda"
        return torch.utils.data.DataLoader(pictures, batch, num_workers=count, pin_memory=pinned, **options)

    def bare():
        loader = make(persistent_workers=True)
        for _, network in networks:
            with torch.no_grad(), torch.autocast(OPTIONS.device, torch.bfloat16):
                for inputs, labels in loader:
                    network(inputs.to(OPTIONS.device, non_blocking=True))
                    labels.to(OPTIONS.device, non_blocking=True)

    def ours():
        loader, reading = make(), SharedReading()
        try:
            for _, network in networks:
                metrics = build_metrics(["logme", "h_score", "leep", "nce"])
                extract(network, loader, metrics, trainer=trainer, progress=False, reading=reading)
        finally:
            reading.close()

    what = f"two passes through {count} loader workers, {n} pictures / bare loops"
    return [show(what, turn_about({"ours": ours, "other": bare}, 2), 1.1)]


def scores():
    """Seconds of single scores of features on the device, on the GPU and on this processor."""
    from lightning_transfer.metrics.registry import build_metrics

    n, d, classes = (10_000, 1280, 100) if OPTIONS.device == "cuda" else (500, 16, 5)
    labels = torch.randint(classes, (n,))
    features = torch.randn(classes, d)[labels] * 0.3 + torch.randn(n, d)
    lines = []
    for name in ("nleep", "knn_accuracy", "gbc", "parc", "pactran", "transrate", "sfda", "lfc", "ncti", "ridge_probe"):
        best, found = {}, {}
        for side, device in (("ours", OPTIONS.device), ("other", "cpu")):
            metrics = build_metrics([name]).to(device)
            for _ in range(2 if side == "ours" else 1):  # the first call on a GPU starts its libraries
                metrics.reset()
                metrics.update(features=features.to(device), labels=labels.to(device))
                wait()
                start = time.perf_counter()
                found[side] = float(metrics.compute()[name])
                wait()
                best[side] = time.perf_counter() - start
        lines.append(show(f"`{name}` of {n} x {d}, {classes} classes / on the processor", best))
        lines[-1]["difference"] = abs(found["ours"] - found["other"]) / max(abs(found["other"]), 1e-12)
        print(f"   relative difference {lines[-1]['difference']:.1e}", flush=True)
    return lines


def options():
    """Half precision, channels last and compilation of the forward pass beside single precision."""
    n = 128 if OPTIONS.device == "cuda" else 2
    lines = []
    for name, size, backbone in _backbones():
        backbone.to(OPTIONS.device).eval()
        pictures = torch.rand(n, 3, size, size, device=OPTIONS.device)

        def run(network=backbone, dtype=None, inputs=pictures):
            with torch.no_grad(), torch.autocast(OPTIONS.device, dtype, enabled=dtype is not None):
                network(inputs)

        plain = {"other": run}
        half = torch.bfloat16
        lines.append(show(f"bf16 / float32, {name}", turn_about({"ours": lambda: run(dtype=half), **plain}, 5)))  # noqa: B023
        compiled = torch.compile(backbone)
        sides = {"ours": lambda: run(compiled, half), "other": lambda: run(dtype=half)}  # noqa: B023
        lines.append(show(f"compiled / not, bf16, {name}", turn_about(sides, 5)))
        last = {"other": lambda: run(dtype=half)}  # noqa: B023
        before = turn_about({"ours": last["other"], **last}, 5)["other"]
        backbone.to(memory_format=torch.channels_last)
        after = turn_about({"ours": lambda: run(dtype=half)}, 5)["ours"]  # noqa: B023
        lines.append(show(f"channels last / not, bf16, {name}", {"ours": after, "other": before}))
    return lines


PARTS = {part.__name__: part for part in (updates, computes, agreement, extraction, workers, scores, options)}


def main():
    global OPTIONS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"some of {list(PARTS)}")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    OPTIONS = parser.parse_args()
    unknown = set(OPTIONS.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown parts {sorted(unknown)}, known: {list(PARTS)}")
    if OPTIONS.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU; `--device cpu` tries the script at small sizes")
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    record = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for part in OPTIONS.parts:
        lines = PARTS[part]()
        if OPTIONS.device == "cuda":
            record[part] = {"rows": lines, "card": torch.cuda.get_device_name(), "torch": torch.__version__}
            RESULTS.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
