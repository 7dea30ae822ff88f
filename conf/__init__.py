"""The packaged Hydra configs.

Two kinds are not files: a data set as ``reference`` is its config as ``target`` in another place, and the config of a
score is its name without options. Hydra finds these in its store, which is filled when it opens this package. A file of
the same name stands in their place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

GROUPS = ("reference", "metrics")
_HERE = Path(__file__).parent


def generated_configs(group: str, *folders: Path) -> dict[str, dict[str, Any]]:
    """Configs of a group that are not files.

    Args:
        group: Name of the group.
        folders: Further folders of configs, whose targets are references too.

    Returns:
        The contents by name.
    """
    places = (_HERE, *folders)
    configs: dict[str, dict[str, Any]] = {}
    if group == "reference":
        names = {path.stem for place in places for path in place.glob("target/*.yaml")}
        configs = {name: {"defaults": [f"/target/{name}@_here_"]} for name in sorted(names)}
    elif group == "metrics":
        from lightning_transfer.metrics import SCORES

        configs = {name: {name: {}} for name in SCORES}
    return {
        name: content
        for name, content in configs.items()
        if not any((place / group / f"{name}.yaml").is_file() for place in places)
    }


def fill_store(*folders: Path) -> None:
    """Put what :func:`generated_configs` gives where Hydra finds it, in place of what was there.

    Args:
        folders: Further folders of configs.
    """
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for group in GROUPS:
        store.repo.pop(group, None)
        for name, content in generated_configs(group, *folders).items():
            store.store(name=name, node=content, group=group, provider=__name__)


fill_store()
