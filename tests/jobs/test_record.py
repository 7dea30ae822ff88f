"""The table of jobs."""

from __future__ import annotations

from pathlib import Path

import lightning_transfer.conf
import pytest
import yaml

from lightning_transfer.configs import known_configs
from lightning_transfer.jobs.record import JOBS

CONF = Path(next(iter(lightning_transfer.conf.__path__)))


WITH_CONFIGS = {name: job for name, job in JOBS.items() if not job.plain}


@pytest.mark.parametrize("job", JOBS.values(), ids=list(JOBS))
def test_a_job_has_a_function(job):
    assert callable(job.load())


@pytest.mark.parametrize("job", WITH_CONFIGS.values(), ids=list(WITH_CONFIGS))
def test_a_job_has_a_config_and_known_groups(job):
    content = yaml.safe_load((CONF / f"{job.name}.yaml").read_text())
    groups = {key for entry in content["defaults"] if isinstance(entry, dict) for key in entry}
    assert set(job.groups) <= groups
    assert all(known_configs(group) for group in job.groups)


def test_every_config_of_a_job_is_a_job():
    assert {path.stem for path in CONF.glob("*.yaml")} == set(WITH_CONFIGS)
