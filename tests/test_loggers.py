import json
import struct
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from segedu.cli import app
from segedu.errors import InputError
from segedu.loggers import open_log
from segedu.runs import Epoch

EPOCHS = [Epoch(i, 0.1 / (i + 1), 2.0 - 0.5 * i, 0.25 * i) for i in range(4)]
NAMES = ("learning_rate", "train_loss", "val_score")


def noted(kind, folder, epochs, about=None):
    with open_log(kind, folder, about or {"seed": 3}) as note:
        for epoch in epochs:
            note(epoch)


def read_events(folder):
    """The epochs in the event files of a folder, by step, as TensorBoard itself reads them."""
    events = EventAccumulator(str(folder))
    events.Reload()
    series = {name: [(e.step, e.value) for e in events.Scalars(name)] for name in NAMES}
    return events, series


def expected(epochs):
    return {
        name: [(e.number, pytest.approx(getattr(e, name), rel=1e-6)) for e in epochs]
        for name in NAMES
    }


def read_wandb(folder):
    """The history records of all offline files below a folder, oldest first, and their run ids."""
    from wandb.proto import wandb_internal_pb2

    files = sorted(folder.rglob("*.wandb"))
    rows = []
    for file in files:
        data, place = file.read_bytes(), 7  # after the header
        while place < len(data):
            _, length, kind = struct.unpack("<IHB", data[place : place + 7])
            assert kind == 1  # a whole record; these are too short to be split
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data[place + 7 : place + 7 + length])
            place += 7 + length
            if record.WhichOneof("record_type") == "history":
                rows.append(
                    {
                        item.key or ".".join(item.nested_key): json.loads(item.value_json)
                        for item in record.history.item
                    }
                )
    return rows, [file.stem for file in files]


@pytest.fixture
def no_network(monkeypatch):
    """Offline by default, and no answer from the network or from a login."""
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


def test_tensorboard_reads_back_what_was_noted(tmp_path):
    noted("tensorboard", tmp_path / "log", EPOCHS)
    events, series = read_events(tmp_path / "log")
    assert series == expected(EPOCHS)
    (text,) = events.Tensors("about/text_summary")
    assert json.loads(text.tensor_proto.string_val[0]) == {"seed": 3}


def test_a_run_that_goes_on_has_each_epoch_once(tmp_path):
    noted("tensorboard", tmp_path, EPOCHS[:2])
    noted("tensorboard", tmp_path, EPOCHS[2:])
    assert read_events(tmp_path)[1] == expected(EPOCHS)


def test_an_epoch_that_is_noted_again_replaces_the_older_one(tmp_path):
    """The checkpoint is older than the log, or was deleted to begin anew."""
    stale = [Epoch(i, 9.0, 9.0, 9.0) for i in range(4)]
    noted("tensorboard", tmp_path, EPOCHS[:1])
    noted("tensorboard", tmp_path, stale[1:])
    noted("tensorboard", tmp_path, EPOCHS[1:3])
    assert read_events(tmp_path)[1] == expected(EPOCHS[:3])
    noted("tensorboard", tmp_path, EPOCHS[:1])
    assert read_events(tmp_path)[1] == expected(EPOCHS[:1])


def test_an_epoch_is_on_the_disk_as_soon_as_it_is_noted(tmp_path):
    with open_log("tensorboard", tmp_path, {}) as note:
        for number, epoch in enumerate(EPOCHS, start=1):
            note(epoch)
            assert read_events(tmp_path)[1] == expected(EPOCHS[:number])


@pytest.mark.parametrize("kind", ["none", "tensorboard", "wandb"])
def test_a_run_without_an_epoch_leaves_nothing(tmp_path, kind):
    noted(kind, tmp_path / "log", [])
    assert list(tmp_path.iterdir()) == []


def test_no_log_writes_nothing(tmp_path):
    noted("none", tmp_path / "log", EPOCHS)
    assert list(tmp_path.iterdir()) == []


def test_wandb_offline_keeps_each_epoch_in_one_run(tmp_path, no_network):
    noted("wandb", tmp_path / "log", EPOCHS[:2])
    noted("wandb", tmp_path / "log", EPOCHS[2:])
    rows, ids = read_wandb(tmp_path)
    assert [row["_step"] for row in rows] == [0, 1, 2, 3]
    assert [{name: row[name] for name in NAMES} for row in rows] == [
        {name: getattr(epoch, name) for name in NAMES} for epoch in EPOCHS
    ]
    run_id = (tmp_path / "log" / "wandb-id.txt").read_text().strip()
    assert ids == [f"run-{run_id}"] * 2


def test_a_run_begun_anew_is_another_run_for_wandb(tmp_path, no_network):
    for _ in range(2):
        noted("wandb", tmp_path, EPOCHS[:1])
    first, second = read_wandb(tmp_path)[1]
    assert first != second


def test_wandb_goes_online_only_when_told_to(tmp_path, monkeypatch):
    import wandb

    asked = []
    monkeypatch.setattr(wandb, "init", lambda **options: asked.append(options) or FakeRun())
    for mode in ("", "online"):
        monkeypatch.setenv("WANDB_MODE", mode) if mode else monkeypatch.delenv(
            "WANDB_MODE", raising=False
        )
        noted("wandb", tmp_path, EPOCHS[:1])
    assert [(a["mode"], a["resume"]) for a in asked] == [("offline", None), ("online", "allow")]
    assert asked[0]["config"] == {"seed": 3}


class FakeRun:
    def log(self, *arguments, **options):
        pass

    def finish(self):
        pass


@pytest.mark.parametrize(
    ("kind", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")]
)
def test_a_missing_package_is_named_before_anything_is_trained(monkeypatch, tmp_path, kind, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=f"package {kind} is not installed; run `pip install"):
        noted(kind, tmp_path, EPOCHS)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_log_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such log; choose one of: none, tensorboard, wandb"):
        open_log("mlflow", tmp_path, {})


def test_the_command_logs_beside_the_checkpoint_and_goes_on_there(tmp_path, monkeypatch):
    """Interrupted after its first epoch, and called again: each epoch is in the log once."""
    from segedu import train
    from segedu.data.scenes import Scenes

    small = lambda name, split: Scenes(4, size=16, seed=len(split))  # noqa: ARG005, E731
    monkeypatch.setattr("segedu.data.catalog.load", small)
    run = ["train", "--data", "scenes", "--epochs", "3", "--device", "cpu", "--no-amp"]
    run += ["--checkpoint", str(tmp_path / "a.pt"), "--log", "tensorboard"]
    whole = train.evaluate
    calls = []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(*arguments, **options)

    monkeypatch.setattr(train, "evaluate", interrupted)
    assert CliRunner().invoke(app, run).exit_code == 130
    assert CliRunner().invoke(app, run).exit_code == 0
    folder = Path(tmp_path / "a-log")
    assert [step for step, _ in read_events(folder)[1]["train_loss"]] == [0, 1, 2]
    assert len(list(folder.iterdir())) == 2
