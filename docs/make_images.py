"""Make the pictures of the docs: python docs/make_images.py (needs the extra ``lite`` and Chromium)."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
IMAGES = HERE / "images"


def save(figure: Any, name: str) -> None:
    """A figure as a small PNG."""
    figure.savefig(IMAGES / name, dpi=80)
    shrink(IMAGES / name)


def shrink(path: Path) -> None:
    """At most 128 colours."""
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)


def main() -> None:
    """Screen, bound, layers, and the report in a browser."""
    from lightning_transfer import screen
    from lightning_transfer.data import PhotoPatches
    from lightning_transfer.screening import plot_layers, relate, screen_layers
    from tests.report._browser import Page

    IMAGES.mkdir(exist_ok=True)
    zoo = [f"efficientnet_lite{version}{kind}" for version in (0, 1, 2) for kind in ("", "_random")]
    board = screen(
        zoo, PhotoPatches(), reference="digits_0_4", max_samples=120, error_bars=True, relatedness={"folds": 1}
    )
    save(board.plot(), "leaderboard.png")
    save(plot_layers(screen_layers("efficientnet_lite0", PhotoPatches(), "logme", max_samples=120)), "layers.png")
    save(relate("efficientnet_lite0", "digits_0_4", "digits_5_9", max_samples=300, baselines=0).plot(), "bound.png")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.html"
        board.to_html(report)
        page = Page(Path(folder) / "profile")
        page.open(report, 1280)
        page.screenshot(IMAGES / "report.png", 1150)
        page.open(report, 400, dark=True)
        page.screenshot(IMAGES / "report_narrow.png", 1000)
        page.close()
    shrink(IMAGES / "report.png")
    shrink(IMAGES / "report_narrow.png")


if __name__ == "__main__":
    main()
