"""Every packaged config composes, names only what may be built, and fits the code."""

from __future__ import annotations

from pathlib import Path

import lightning_transfer.conf
import pytest
import yaml
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from lightning_transfer.configs import known_configs, load_config
from lightning_transfer.jobs.record import JOBS as RECORDS
from lightning_transfer.metrics.registry import METRICS, build_metrics
from lightning_transfer.utilities.instantiate import check_target, find_targets, instantiate

CONF = Path(next(iter(lightning_transfer.conf.__path__)))


JOBS = [name for name, job in RECORDS.items() if not job.plain]


GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir() and not folder.name.startswith("_"))


LAUNCHERS = {"ray", "slurm"}  # experiments whose launcher is an extra that tests do not install


OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]


REQUIRED = {"relate": ["reference=digits"]}


@pytest.fixture(autouse=True, scope="module")
def application():
    with initialize_config_module("lightning_transfer.conf", version_base="1.3"):
        yield


def composed(job: str, *overrides: str):
    return compose(job, [*REQUIRED.get(job, []), *overrides])


def choices_of(job: str) -> set[str]:
    defaults = yaml.safe_load((CONF / f"{job}.yaml").read_text())["defaults"]
    return {key for entry in defaults if isinstance(entry, dict) for key in entry}


@pytest.mark.parametrize("job", JOBS)
def test_jobs_compose_and_name_only_what_may_be_built(job):
    config = composed(job)
    targets = list(find_targets(OmegaConf.to_container(config, resolve=False)))
    assert targets
    for target in targets:
        check_target(target)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_in_its_jobs(group, option):
    job = next((job for job in JOBS if group in choices_of(job)), None)
    assert job or group == "data", f"no job uses the group {group}"  # a part of targets and references
    if job and option not in LAUNCHERS:
        config = composed(job, f"{group}={option}")
        for target in find_targets(OmegaConf.to_container(config, resolve=False)):
            check_target(target)


@pytest.mark.parametrize("name", sorted(LAUNCHERS))
def test_experiments_of_other_launchers_only_choose_a_launcher(name):
    content = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text())
    assert [list(entry) for entry in content["defaults"]] == [["override /hydra/launcher"]]
    assert set(content) <= {"defaults", "hydra"}


def test_there_is_a_config_for_every_score_and_none_else():
    names = set(known_configs("metrics")) - {"default", "all"}
    assert names == set(METRICS)
    for name in names:
        assert list(load_config("metrics", name)) == [name]


@pytest.mark.parametrize("choice", ["default", "all", "logme", "[logme,h_score]"])
def test_choices_of_metrics_build(choice):
    names = OmegaConf.to_container(composed("screen", f"metrics={choice}").metrics)
    built = build_metrics(names, options=names)
    expected = {"logme": ["logme"], "[logme,h_score]": ["logme", "h_score"]}
    assert set(built.keys()) == set(expected.get(choice, built.keys()))


def test_the_default_zoo_has_a_random_control_for_each_backbone():
    zoo = OmegaConf.to_container(composed("screen").zoo)
    for name, config in zoo.items():
        assert config["pretrained"] is not name.endswith("_random")
        assert f"{name.removesuffix('_random')}_random" in zoo


def test_a_backbone_alone_leaves_the_zoo_aside():
    config = composed("screen", "backbone=efficientnet_lite1")
    assert config.backbone.variant == 1
    assert composed("screen").get("backbone") is None


def test_the_trainer_of_every_cpu_config_builds():
    for name in ("default", "cpu"):
        trainer = instantiate(load_config("trainer", name))
        assert trainer.num_devices == 1
