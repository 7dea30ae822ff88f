"""Every packaged config composes, names only what may be built, and fits the code."""

from __future__ import annotations

from pathlib import Path

import lightning_transfer.conf
import pytest
import yaml
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from lightning_transfer.configs import known_configs, load_config, read_config
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


@pytest.mark.parametrize("group", ["target", "reference"])
def test_packaged_data_are_found_by_name_within_an_application(group):
    data = instantiate(load_config(group, "digits"))
    assert compose("screen").split == "train"  # the application's own Hydra is as it was
    assert data.num_classes == 10


def test_every_target_is_a_reference_too():
    assert known_configs("reference") == known_configs("target")
    for name in ("digits_0_4", "photo_patches"):
        assert composed("screen", f"reference={name}").reference == composed("screen", f"target={name}").target
    assert composed("screen", "reference=emoji").reference.name == "emoji_google"  # a file of its own


def test_configs_of_a_users_own_folder_are_listed_and_stand_in_for_ours(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target/mine.yaml").write_text("_target_: lightning_transfer.data.Digits\n")
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/logme.yaml").write_text("logme: {}\n")
    assert "mine" in known_configs("reference", tmp_path)
    generated = lightning_transfer.conf.generated_configs
    assert generated("reference", tmp_path)["mine"] == {"defaults": ["/target/mine@_here_"]}
    assert "logme" in generated("metrics")
    assert "logme" not in generated("metrics", tmp_path)


def test_the_text_of_a_choice_holds_what_it_builds_on():
    text = read_config("reference", "digits_0_4")
    assert "image_size: null" in text
    assert "batch_size: 64" in text
    assert "defaults" not in text
    assert read_config("metrics", "logme") == "logme: {}\n"
    assert read_config("target", "nope") is None


def test_unknown_names_say_what_is_known():
    with pytest.raises(ValueError, match=r"Expected argument `zoo` to be one of .*efficientnet_lite.*'nope'"):
        load_config("zoo", "nope")
    assert known_configs("nothing") == []
