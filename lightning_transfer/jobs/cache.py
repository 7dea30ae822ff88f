"""The job ``cache``: what lies in the cache of features, or no more of it."""

from __future__ import annotations

import time
from collections.abc import Sequence

_CLEAR = "clear"
_FOLDER = "folder="


def run(words: Sequence[str]) -> None:
    """Print the entries of a cache of features, the last used first, or delete them.

    Args:
        words: ``clear``, and ``folder=PATH`` for another folder than the default; neither is needed.

    Raises:
        ValueError: If a word is something else.
    """
    from lightning_transfer.cache import FeatureCache
    from lightning_transfer.utilities.text import plain

    unknown = [word for word in words if word != _CLEAR and not word.startswith(_FOLDER)]
    if unknown:
        raise ValueError(f"Expected `clear` or `folder=PATH`, but got {unknown[0]!r}.")
    folders = [word.removeprefix(_FOLDER) for word in words if word.startswith(_FOLDER)]
    cache = FeatureCache(folders[-1] if folders else None)
    if _CLEAR in words:
        print(f"{plain(cache.folder)}: {_size(cache.clear())} deleted")
        return
    entries = cache.entries()
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        backbone, data, split = (plain(entry.about.get(name, "?")) for name in ("backbone", "data", "split"))
        print(f"{used}  {_size(entry.size):>10}  {entry.num_samples:>9} samples  {backbone} on {data} ({split})")
    print(
        f"{plain(cache.folder)}: {len(entries)} entries, {_size(cache.size())} of at most {_size(int(cache.max_bytes))}"
    )


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
