"""The command line, mostly as a process of its own, from a folder that is not the repository."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from _cli import TINY, exit_code, run
from attacks.runs import CONFIGS

from lightning_transfer.cli import _find_unread
from lightning_transfer.jobs.arguments import override
from lightning_transfer.screening import Leaderboard


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_overview(capsys, arguments):
    assert exit_code(*arguments) == 0
    text = capsys.readouterr().out
    for job in ("screen", "relate", "finetune"):
        assert job in text


@pytest.mark.parametrize("job", ["screen", "relate", "finetune"])
def test_help_of_a_job_shows_examples_and_choices(capsys, job):
    assert exit_code(job, "--help") == 0
    text = capsys.readouterr().out
    assert f"lightning-transfer {job} " in text
    assert "efficientnet_lite0" in text
    assert "photo_patches" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("screen", "--help"),
        ("screen", *TINY, "backbone=efficientnet_lite0_random", "backbone.input_size=32"),
    ],
    ids=["list", "help", "screen"],
)
def test_output_that_nobody_reads_ends_without_a_word(tmp_path, arguments):
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "lightning_transfer", *arguments],
            cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True, timeout=240, check=False,
        )  # fmt: skip
    finally:
        os.close(write)
    assert done.returncode == 141
    assert not any(word in done.stderr for word in ("Broken pipe", "Traceback", "Error"))


def test_null_chooses_nothing(tmp_path):
    done = run(tmp_path, "screen", "target=null")
    assert (done.returncode, done.stderr) == (2, "lightning-transfer: target has no value: add target=NAME.\n")
    swept = run(tmp_path, "screen", "-m", "logger=null,csv", *TINY)
    assert swept.returncode == 2
    assert "type names alone, or ~logger in its stead to choose nothing" in swept.stderr


def test_help_of_a_choice_shows_its_values(capsys):
    assert exit_code("screen", "target=image_folder", "--help") == 0
    assert "root: ???" in capsys.readouterr().out
    assert exit_code("screen", "--help", "target=image_foldr") == 2
    assert "did you mean 'image_folder'?" in capsys.readouterr().err


def test_help_lists_the_configs_of_a_folder(capsys, tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target/mine.yaml").touch()
    assert exit_code("relate", "--help", "--config-dir", str(tmp_path)) == 0
    assert capsys.readouterr().out.count("|mine|") == 2  # as target and as reference


def test_help_loads_nothing_heavy(tmp_path):
    code = (
        "import sys\nfrom lightning_transfer.cli import main\n"
        "try:\n    main(['screen', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'lightning', 'hydra', 'matplotlib', 'pandas', 'rich', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version(capsys):
    assert exit_code("screen", "--version") == exit_code("--version") == 0
    assert capsys.readouterr().out.startswith("lightning-transfer 0.")


def test_completion(capsys):
    assert exit_code("--complete", "lightning-transfer screen target=image_f") == 0
    assert capsys.readouterr().out == "image_folder \n"
    assert exit_code("--completion", "zsh") == 0
    assert "compdef" in capsys.readouterr().out
    assert exit_code("--completion", "csh") == 2
    assert "type lightning-transfer --completion bash|zsh|fish" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("scren",), "unknown job 'scren'; did you mean 'screen'\\? known jobs are screen, relate, finetune"),
        (("screen", "target=nope"), "unknown target 'nope'; known are .*digits.*photo_patches"),
        (("screen", "backbone=nope"), "unknown backbone 'nope'; known are .*efficientnet_lite0"),
        (("screen", "metrics=nope"), "unknown metrics 'nope'; known are all, .*default, .*logme"),
        (("screen", "zoo=[]"), r"`zoo` to name a backbone or more, such as 'zoo=\[timm/resnet\*\]', but got none"),
        (("screen", "zoo=nope"), "unknown zoo 'nope'; known are .*efficientnet_lite"),
        (("screen", "reference=nope"), "unknown reference 'nope'"),
        (("screen", "experiment=ray", "-m"), r"unknown hydra/launcher 'ray'; .*pip install lightning-transfer\[ray\]"),
        (("screen", "nope=3"), "nope"),
        (
            ("screen", "target=[digits,emoji]"),
            "is a list where one name belongs: for several type -m target=digits,emoji",
        ),
        (("screen", "target=image_folder", "target.root="), "`root` to be a path, but got ''"),
        (("screen", "a==b"), "'a==b' has two '=': type a=b"),
        (("screen", "a=b}"), """'a=b}' is not understood: if all of it is one value, type "a='b}'"."""),
        (("screen", "efficientnet_lite0"), "'efficientnet_lite0' gives no value: type backbone=efficientnet_lite0"),
        (("finetune", "zoo=efficientnet_lite"), "no option 'zoo' of finetune, but of screen, select, study;"),
        (("finetune", "stop_below=-1"), "did you mean 'callbacks.transferability.stop_below'"),
        (("finetune", "seed=x", *TINY[:1]), r"`seed` to be an integer from 0 to 2\*\*32 - 1, but got 'x'"),
        (
            ("screen", "+metrics.h_score.shrinkag=1", *TINY),
            "metrics.h_score: no option 'shrinkag'; known are shrinkage,",
        ),
        (("screen", "hydra.run.dr=x", *TINY), "no option 'hydra.run.dr'. Type "),
        (("study", "modes=[head]"), "no option 'modes'; did you mean 'study.modes'"),
        (("study", "targets=[digts]"), "but got 'digts'; did you mean 'digits'"),
        (("list", "effcientnet*"), "matches none; did you mean 'efficientnet_lite"),
        (("screen", "help"), "'help' gives no value: type --help"),
        (("screen", "target=image_folder", "root=here"), "no option 'root'; did you mean 'target.root'"),
        (("screen", "target.root=here"), "'target.root' of this target, but of idx, image_folder: type target=NAME"),
        (("screen", f"target.root={Path(__file__).parent}"), "but of .*: type target=image_folder target.root=/"),
        (
            ("finetune", "optimizer.momentum=0.5"),
            "but of sgd: type optimizer=sgd optimizer.momentum=0.5",
        ),
        (("screen", "backbone.size=9", "target=digits", "backbone=timm"), "did you mean 'backbone.input_size'"),
        (("screen", "metrics={logme: 3}"), "gives a value where a name belongs: type metrics=NAME, or metrics.KEY="),
        (
            ("screen", "zoo=efficientnet_lite0"),
            r"type backbone=efficientnet_lite0, for several 'zoo=\[",
        ),
        (("screen", "zoo=timm/resnet18"), r"for one backbone type backbone=timm/resnet18, for several 'zoo=\["),
        (("screen", "backbone=efficientnet_lite"), "unknown backbone 'efficientnet_lite'; type zoo=efficientnet_lite;"),
        (("screen", "backbone=efficientnet_lite0,efficientnet_lite1"), r"each type -m too, for one table 'zoo=\["),
        (("screen", "backbone=timm/a", "zoo=efficientnet_lite"), "two choices of what to take: type one of them"),
        (("screen", "--cfg", "jobs"), "--cfg shows one of job, hydra, all, not 'jobs': type --cfg job"),
        (("screen", "--config-name=mine"), "a job has its own config, not 'mine'"),
        (("screen", "--config-path", "conf"), "type --config-dir conf"),
        (("screen", "layers=3", *TINY), "`layers` to be 'all' or names of layers, but got 3"),
        (("screen", "zoo=[timm/vit*]", "zoo.max_parameters=3M", "target=digits"), "`max_parameters` to be a number in"),
        (("screen", "target=image_folder", "target.root=.", "target.in_memory=so"), "`in_memory` to be true or false"),
        (("screen", "max_samples=9 target=digits"), "several values: type each by itself, max_samples=9 target=digits"),
        (("screen", "task=regression", *TINY), "no option 'task'; lightning-transfer screen --cfg job shows those"),
        (("screen", "targt.batch_size=4", "target=digits"), "did you mean 'target.batch_size'\\?"),
        (("screen", "backbone=./none.pt2", *TINY), "there is no file or folder ./none.pt2"),
        (("screen", "backbone=/none/net.ckpt", *TINY), "there is no file or folder /none/net.ckpt"),
        (("screen", "backbone=hf/", *TINY), "did you mean hf/MODEL"),
        (
            ("screen", "backbone=torchvision/resnet5", *TINY),
            "classifier of torchvision, but got 'resnet5'; near: resnet50",
        ),
        (("screen", "trainer=gpu", *TINY), "No supported gpu .*trainer=cpu"),
        (("screen", "+target.clases=[1]", "target=digits"), "target: .* takes no `clases`; did you mean `classes`"),
        (("screen", "rank_by=nope", *TINY), "Expected argument `rank_by`"),
        (("screen", "resume=nowhere", *TINY), "There is no leaderboard `nowhere`"),
        (("screen", "metrics=[logme,nope]"), "unknown metrics 'nope'; known are all, .*default, .*logme"),
        (("screen", "metrics=[]"), "metrics has no value: add metrics=NAME"),
        (("screen", "~target"), "target has no value"),
        (("screen", "+metrics.logme=5", "target=digits"), "`metrics` to hold a dict of options for 'logme', but got 5"),
        (("screen", "error_bars=abc", *TINY), "`error_bars` to be true, false or at least 2 groups, but got 'abc'"),
        (("screen", "error_bars=[1]", *TINY), "`error_bars` to be an integer"),
        (("screen", "max_samples=abc", "target=digits"), "`max_samples` to be an integer of at least 1, but got 'abc'"),
        (("screen", "target=image_folder", "target.root=5"), "`root` to be a path, but got 5"),
        (("screen", "+target.nope=5"), "target: .* takes no `nope`; known are "),
        (("screen", "backbone=efficientnet_lite0", "backbone.seed=abc", *TINY), "efficientnet_lite0: .*`seed`"),
        (("screen", "backbone=efficientnet_lite0", "+backbone.nope=1", *TINY), "efficientnet_lite0: .*takes no `nope`"),
        (
            ("screen", "backbone=program", "backbone.path=nowhere.pt2", "backbone.input_shape=[1,8,8]", *TINY),
            r"There is no program file `nowhere\.pt2`",
        ),
        (("screen", "target=idx"), "target.root has no value: add target.root=VALUE"),
        (("screen", "backbone=timm"), "backbone.model_name has no value"),
        (
            ("screen", "backbone=[efficientnet_lite0,efficientnet_lite9]", "target=digits"),
            "did you mean efficientnet_lite",
        ),
        (("screen", "+trainer.nope=3", *TINY), "trainer: .*nope"),
        (("screen", "target._target_=os.system", "zoo=efficientnet_lite"), "`_target_: os.system` is not allowed"),
        (("screen", "--experimental-rerun=x.pickle"), "reads a pickle"),
        (("relate", "target=digits"), "reference"),
        (("finetune", "target=nope"), "unknown target 'nope'"),
        (("screen", "."), "'.' gives no value: type target=image_folder target.root=.."),
        (("screen", "target=."), "unknown target '.'; for what lies there type target=image_folder target.root=.;"),
        (("relate", f"reference={Path(__file__).parent}"), "type reference=image_folder reference.root=/.*; known are"),
        (("screen", "target=no/such"), "unknown target 'no/such'; known are .*digits"),
        (("screen", "--target", "digits"), "--target; values are given without dashes: type target=digits;"),
        (("screen", "--target=digits"), "--target=digits; values are given without dashes: type target=digits;"),
        (("screen", "zoo=[timm/resnet*", "target=digits"), r"type 'zoo=\[NAME,NAME\]', quotes included"),
        (("screen", "target = digits"), "has a space before '=': type target=digits"),
        (("list", "resnet50"), r"as in 'timm/resnet50\*'"),
        (("list", "timm"), r"as in 'timm/\*'"),
        (("screen", "backbone=resnet50"), "Names in a library begin with that of the library: backbone=timm/resnet50"),
        (("screen", "metrics=LogME"), "did you mean 'logme'"),
        (("screen", "metrics=[H-score]"), "did you mean 'h_score'"),
        (("screen", "target=text", "target.path=x.csv", "target.text=a"), "`label` and `targets`, which name columns"),
        (("screen", "traget=digits"), "no option 'traget'; did you mean 'target'\\?"),
        (("screen", "+targt.batch_size=8", *TINY), "no option 'targt'; did you mean 'target'\\?"),
        (
            ("relate", "reference=digits", "++max_sample=8", *TINY),
            "no option 'max_sample'; did you mean 'max_samples'\\?",
        ),
        (("screen", "+unknown=1", *TINY), "no option 'unknown'; lightning-transfer screen --cfg job shows those"),
        (("screen", "target.rot=x", "target=image_folder"), "no option 'target.rot'; did you mean 'target.root'\\?"),
        (("screen", "metrics.knn_accuracy.k=5"), r"Type \+metrics.knn_accuracy.k=5 to add a new one"),
        (("screen", "target=image_folder", "target.root=nowhere"), "nowhere"),
        (("screen", "target=image_folder", "target.root=~/no such folder"), "no such folder"),
        (("screen", "split=tset", *TINY), "`split` to be one of"),
        (("screen", "max_samples=0", "target=digits"), "`max_samples` to be an integer of at least 1, but got 0"),
        (("screen", "zoo=[timm/no_such_network]", *TINY), "no_such_network"),
        (("screen", "zoo=[resnet18]", *TINY), "resnet18"),
        (("screen", "--config-dir", "nowhere", "target=digits"), "nowhere"),
        (("screen", "target=digits", "--config-dir"), "type --config-dir FOLDER"),
        (("screen", "--multrun", "target=digits"), "did you mean --multirun"),
        (("screen", "target:digits"), "type target=VALUE"),
        (("screen", "target"), "type target=VALUE"),
        (("screen", "trainer.accelerator=tpu", *TINY), "torch_xla"),
        (("screen", "logger=tensorbord", *TINY), "did you mean 'tensorboard'"),
        (("relate", "reference=digits", "target=diabetes"), "to be images of shape"),
        (("relate", "reference=digits_0_4", "target=digits_5_9", "relatedness.fold=2"), "fold"),
        (("finetune", "target=image_folder", "target.root=nowhere", "mode=heads"), "`mode` to be one of"),
        (
            ("finetune", "target=image_folder", "target.root=nowhere", "epochs=0"),
            "`epochs` to be an integer of at least",
        ),
        (("finetune", "target=digits", "ckpt_path=nowhere.ckpt"), "nowhere.ckpt"),
        (("report",), "Expected one folder"),
        (("report", "nowhere"), "there is no `nowhere`"),
        (("report", str(Path(__file__))), f"is a file: `{re.escape(str(Path(__file__).parent))}` is its folder"),
        (("list", "resnet*"), r"as in 'timm/resnet\*'"),
        (("list", "timm/resnet18", "max_size=3"), "max_parameters=NUMBER, but got 'max_size=3'"),
        (("list", "timm/no_such_*"), "no_such_"),
        (("list", "max_parameters=many"), "`max_parameters` to be a number, but got 'many'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(in_process, capsys, arguments, message):
    assert exit_code(*arguments) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("[")]
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("lightning-transfer: ")
    assert re.search(message, lines[0]), lines[0]
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("file", "text", "choice", "message"),
    [
        (
            "experiment",
            "# @package _global_\ntarget: digits\n",
            "experiment=mine",
            "`- override /target: digits` among",
        ),
        ("target", "defaults:\n  - mine\n", "target=mine", "names itself among its defaults"),
    ],
)
def test_configs_of_ones_own_that_are_wrong(in_process, capsys, tmp_path, file, text, choice, message):
    (tmp_path / file).mkdir()
    (tmp_path / file / "mine.yaml").write_text(text)
    assert exit_code("screen", "--config-dir", str(tmp_path), choice) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("[")]
    assert message in line


def test_keys_that_a_value_or_a_config_of_ones_own_names_may_be_added(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "experiment.yaml").write_text("max_samples: ${few}\n")
    folder = ("--config-dir", str(tmp_path))
    assert _find_unread("screen", ["+few=3", "max_samples=${few}", "+hydra.sweep=x", "+experiment=parallel"]) is None
    assert _find_unread("screen", [*folder, "+few=3", "+mine=x"]) is None
    assert _find_unread("screen", ["+few=3", "+mine=x"]) == "few"


def test_a_missing_extra_says_how_to_install_it(in_process, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert exit_code("screen", "backbone=timm", "backbone.model_name=resnet18", *TINY) == 2
    assert "pip install lightning-transfer[timm]" in capsys.readouterr().err


def test_bugs_keep_their_traceback_when_asked(tmp_path):
    done = run(tmp_path, "screen", "target=idx", HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


NET = ("--config-dir", str(CONFIGS), "backbone=net4", "target=digits", "metrics=[h_score]", "max_samples=60")


@pytest.mark.parametrize("sweep", [False, True])
def test_a_folder_that_cannot_be_written_costs_a_line(in_process, capsys, monkeypatch, sweep):
    monkeypatch.setattr("tempfile.tempdir", str(in_process))
    (in_process / "file").touch()
    where = f"hydra.{'sweep' if sweep else 'run'}.dir=file/x"
    assert exit_code("screen", *(["-m"] if sweep else []), *NET, where) == 0
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert line.startswith(f"lightning-transfer: `{in_process}/file/x` cannot be written (Not a directory): results go")
    (folder,) = in_process.glob("lightning-transfer-*")
    assert line.endswith(f"`{folder}`.")
    assert Leaderboard.load(folder / "0" if sweep else folder).rows[0].backbone == "net4"
    assert "net4" in shown.out


def test_where_nothing_at_all_can_be_written_the_rows_are_shown(in_process, capsys, monkeypatch):
    def full(_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning_transfer.utilities.files.os.fsync", full)
    assert exit_code("screen", *NET, "hydra.run.dir=out") == 0
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert "net4" in shown.out
    assert "results are shown, not kept" in lines[0]
    assert all("No space left on device" in line for line in lines)
    assert len(lines) == 2  # and that the leaderboard is not written


def test_a_disk_that_is_full_in_the_middle_of_a_run(in_process, capsys, monkeypatch):
    def full(*_args, **_keywords) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning_transfer.screening.leaderboard.write_atomically", full)
    assert exit_code("screen", *NET, "hydra.run.dir=out") == 0
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert line.startswith("lightning-transfer: The leaderboard is not written to `")
    assert "net4" in shown.out


def test_features_of_an_earlier_run_are_found_again(in_process, capsys):
    boards = []
    for number, cache in enumerate(("cache=features", "cache=features", "cache=false")):
        torch.manual_seed(0)  # of the weights of net4
        assert exit_code("screen", *NET, cache, f"hydra.run.dir=out{number}") == 0
        boards.append(Leaderboard.load(in_process / f"out{number}"))
    assert [board.rows[0].cached for board in boards] == [False, True, False]
    assert len({board.rows[0].scores["h_score"] for board in boards}) == 1
    assert "net4: features from the cache" in " ".join(capsys.readouterr().out.split())
    assert exit_code("cache", "folder=features") == 0
    assert "60 samples  sequential on digits (train)" in capsys.readouterr().out
    assert exit_code("screen", *NET, "cache=3") == 2
    assert "Expected argument `cache` to be True, False, a folder" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_a_signal_ends_says_how_to_go_on(in_process, capsys, monkeypatch, number, request):
    if number == signal.SIGINT:  # it may be ignored where tests run in the background
        given = signal.signal(number, signal.default_int_handler)
        request.addfinalizer(lambda: signal.signal(number, given))
    before = signal.getsignal(number)
    monkeypatch.setattr("lightning_transfer.jobs.relate.run", lambda cfg: os.kill(os.getpid(), number))
    folder = str(in_process / "my 'runs'")
    words = ["relate", "reference=digits_0_4", "target=digits_5_9", override("hydra.run.dir", folder)]
    assert exit_code(*words) == 130
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "lightning-transfer: interrupted; to go on: " + shlex.join(["lightning-transfer", *words])
    assert signal.getsignal(number) is before
    monkeypatch.setattr("lightning_transfer.jobs.relate.run", lambda cfg: 1.0)
    assert exit_code(*shlex.split(line.partition("to go on: ")[2])[1:]) == 0


def test_an_error_of_the_system_is_one_line_with_the_words_to_go_on(in_process, capsys, monkeypatch):
    def full(cfg) -> None:
        raise OSError(28, "No space left on device", "x.ckpt")

    monkeypatch.setattr("lightning_transfer.jobs.finetune.run", full)
    assert exit_code("finetune", "hydra.run.dir=out") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left on device: 'x.ckpt'" in line
    assert line.endswith("; to go on when that is mended: lightning-transfer finetune hydra.run.dir=out")


def test_a_score_of_ones_own_stands_beside_the_others(in_process, capsys):
    (in_process / "conf/metrics").mkdir(parents=True)
    (in_process / "conf/metrics/mine.yaml").write_text("mine: {_target_: lightning_transfer.metrics.HScore}\n")
    words = ("--config-dir", "conf", "zoo=[efficientnet_lite0_random]", "target=digits", "max_samples=60")
    assert exit_code("screen", *words, "metrics=[mine,h_score]", "hydra.run.dir=out") == 0
    (scores,) = [row.scores for row in Leaderboard.load(in_process / "out").rows]
    assert scores["mine"] == scores["h_score"]


def test_the_words_to_go_on_are_those_that_were_typed(in_process, capsys, monkeypatch):
    def stop(cfg) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_transfer.jobs.screen.run", stop)
    words = [
        "screen",
        "zoo=[timm/test_vit*]",
        "target.root=~/x",
        "target=image_folder",
        "--config-dir",
        str(in_process),
    ]
    assert exit_code(*words) == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith(shlex.join(["lightning-transfer", *words]))


@pytest.mark.long
def test_two_devices_write_what_one_writes(tmp_path):
    """Lightning starts the command once more for the second device: it has to say the job, and must not print again."""
    board = ("screen", "backbone=efficientnet_lite0_random", *TINY, "cache=false", "trainer.accelerator=cpu")
    results = [run(tmp_path, *board, f"hydra.run.dir={n}", f"trainer.devices={n}") for n in (1, 2)]
    assert [result.returncode for result in results] == [0, 0], results[-1].stderr
    assert [result.stdout.count("Ranked by") for result in results] == [1, 1]
    one, two = (json.loads((tmp_path / str(n) / "leaderboard.json").read_text())["rows"][0] for n in (1, 2))
    assert two["scores"] == pytest.approx(one["scores"], rel=1e-9)
    assert two["remarks"] == one["remarks"]


def test_libraries_that_do_not_belong_together(monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("lightning_transfer.cli._compose_and_run", fail)
    assert exit_code("screen", "target=digits") == 1
    assert "torch and torchvision are of different builds" in capsys.readouterr().err
