import importlib
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from segedu import __version__
from segedu.cli import app, form
from segedu.errors import InputError
from segedu.notebooks.run import Record

RUN = importlib.import_module("segedu.notebooks.run")
FAST = ["--epochs", "1", "--device", "cpu", "--no-amp"]


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def my_folder(tmp_path):
    """Four small pictures with masks of two classes."""
    random = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / "mine" / name).mkdir(parents=True)
    for i in range(4):
        mask = random.integers(0, 2, (24, 24), dtype=np.uint8)
        Image.fromarray(mask).save(tmp_path / "mine" / "masks" / f"{i}.png")
        Image.fromarray(mask * 200).save(tmp_path / "mine" / "images" / f"{i}.png")
    return tmp_path / "mine"


def test_help_is_quick_and_importing_loads_no_torch():
    code = (
        "import sys, segedu, segedu.cli; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "segedu", "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.6


def test_the_version_is_printed():
    assert call("--version").output.strip() == f"segedu {__version__}"


def test_every_setting_of_a_run_is_an_option_with_its_help():
    out = " ".join(call("train", "--help").output.split())
    for option in ("--epochs", "--learning-rate", "--no-amp", "--workers", "--seed"):
        assert option in out
    assert "Passes over the training data." in out
    assert "along a half cosine." in out


def test_training_then_predicting_writes_mask_and_overlay(my_folder, tmp_path):
    checkpoint = tmp_path / "run.pt"
    trained = call("train", "--data", my_folder, "--checkpoint", checkpoint, *FAST)
    assert trained.exit_code == 0, trained.output
    assert "epoch 1/1" in trained.output
    assert "class 1" in trained.output
    assert f"checkpoint: {checkpoint}" in trained.output
    predicted = call("predict", checkpoint, my_folder / "images" / "0.png", "-o", tmp_path / "out")
    assert predicted.exit_code == 0, predicted.output
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"0_mask.png", "0_overlay.png"}


def test_without_a_checkpoint_the_run_is_kept_in_runs(my_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("train", "--data", "mine", *FAST).exit_code == 0
    assert (tmp_path / "runs" / "mine-unet.pt").exists()


def bad_inputs(folder):
    yield ["train", "--data", "camvit"], "did you mean camvid"
    yield ["train", "--data", "scenes", "--model", "unett"], "did you mean unet"
    yield ["train", "--data", "scenes", "--epochs", 0], "epochs is 0"
    yield ["predict", folder / "none.pt", folder / "images" / "0.png"], "no such checkpoint"
    yield ["data", "where", "scenes"], "drawn on demand"
    yield ["run", "77", "--course", folder], "has no chapter"


def test_bad_input_ends_in_one_line_and_status_1(my_folder, tmp_path):
    (my_folder / "source").mkdir()
    for arguments, expected in bad_inputs(my_folder):
        result = call(*arguments)
        assert result.exit_code == 1, arguments
        assert result.stderr.startswith("segedu: ")
        assert result.stderr.count("\n") == 1
        assert expected in result.stderr


@pytest.mark.parametrize("broken", ["value", "size", "unreadable", "no image", "truncated"])
def test_broken_files_are_named_and_nothing_is_left_half_written(my_folder, tmp_path, broken):
    checkpoint = tmp_path / "run.pt"
    if broken == "value":
        (my_folder / "classes.txt").write_text("ground\nthing\n")
        Image.fromarray(np.full((24, 24), 2, np.uint8)).save(my_folder / "masks" / "1.png")
    if broken == "size":
        Image.fromarray(np.zeros((24, 25), np.uint8)).save(my_folder / "masks" / "1.png")
    if broken == "unreadable":
        (my_folder / "images" / "1.png").write_bytes(b"oops")
    if broken == "no image":
        (my_folder / "images" / "1.png").unlink()
    if broken == "truncated":
        checkpoint.write_bytes(b"PK")
    result = call("train", "--data", my_folder, "--checkpoint", checkpoint, *FAST)
    assert result.exit_code == 1
    assert ("run.pt" if broken == "truncated" else "1.png") in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) in (["mine"], ["mine", "run.pt"])


def test_data_list_names_every_set(monkeypatch, tmp_path):
    monkeypatch.setenv("SEGEDU_DATA", str(tmp_path))
    out = call("data", "list").output
    for name in ("scenes", "camvid", "nuclei", "membranes", "pets", "tiles", "coco", "bsds"):
        assert f"\n{name} " in f"\n{out}"
    assert "0 of 1405 files here" in out
    assert call("data", "where", "camvid").output.strip() == str(tmp_path / "camvid")


def test_models_are_listed_with_what_they_cost(monkeypatch):
    from segedu.models import describe

    monkeypatch.setattr(describe, "MODELS", {"unet": describe.MODELS["unet"]})
    header, row = call("models").output.splitlines()
    assert header.split() == ["weights", "MACs,", "256", "sees", "takes"]
    assert row.split()[:7] == ["unet", "1.1", "M", "6.0", "G", "100", "columns"]


def test_data_get_prints_where_the_set_is(monkeypatch, tmp_path):
    monkeypatch.setattr("segedu.data.download.get", lambda name: tmp_path / name)
    assert call("data", "get", "pets").output.strip() == str(tmp_path / "pets")


@pytest.mark.parametrize(("failure", "status"), [(None, 0), ("cell 3: ValueError", 1)])
def test_a_failed_chapter_makes_the_status_1_after_the_table(monkeypatch, failure, status):
    records = [Record("01_first", 1.5, 2**20, 7, failure), Record("06_ce", 1.0, 2**20, 9, None)]
    monkeypatch.setattr(RUN, "run_chapters", lambda *_, **__: iter(records))
    result = call("run", "01", "06")
    assert result.exit_code == status
    assert "01_first" in result.output
    assert "06_ce" in result.output


def test_an_interrupted_run_prints_what_is_finished_and_ends_with_130(monkeypatch):
    def interrupted(*_arguments, **_options):
        yield Record("01_first", 1.5, 2**20, 7, None)
        raise KeyboardInterrupt

    monkeypatch.setattr(RUN, "run_chapters", interrupted)
    result = call("run")
    assert result.exit_code == 130
    assert "01_first" in result.output


def test_notebooks_build_prints_each_notebook(monkeypatch, tmp_path):
    monkeypatch.setattr(
        "segedu.notebooks.build.build_chapters",
        lambda course, chapters: [course / c for c in chapters],
    )
    out = call("notebooks", "build", "01", "06", "--course", tmp_path).output
    assert out.split() == [str(tmp_path / "01"), str(tmp_path / "06")]


def test_a_full_disk_is_said_in_one_line(monkeypatch, capsys):
    with pytest.raises(form.typer.Exit), form.one_line_errors():
        raise OSError(28, os.strerror(28), "a.pt")
    assert capsys.readouterr().err == "segedu: a.pt: No space left on device; free some space\n"


def test_an_error_of_several_lines_becomes_one(capsys):
    with pytest.raises(form.typer.Exit), form.one_line_errors():
        raise InputError("first\n  second")
    assert capsys.readouterr().err == "segedu: first second\n"
