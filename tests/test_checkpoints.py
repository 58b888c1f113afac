import errno

import pytest
import torch

from segedu import checkpoints
from segedu.checkpoints import load_checkpoint, load_weights, save_checkpoint
from segedu.errors import InputError


def test_what_is_saved_comes_back(tmp_path):
    save_checkpoint(tmp_path / "a.pt", {"weights": {"w": torch.arange(3)}, "note": "x"})
    state = load_checkpoint(tmp_path / "a.pt")
    assert state["weights"]["w"].tolist() == [0, 1, 2]
    assert state["note"] == "x"


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_truncated_checkpoint_is_named(tmp_path, kept):
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"weights": torch.rand(1000)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(InputError, match=r"a\.pt: not a whole checkpoint"):
        load_checkpoint(path)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.pt: no such checkpoint"):
        load_checkpoint(tmp_path / "none.pt")


class Harmful:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_checkpoint_runs_no_code(tmp_path, capsys):
    torch.save({"format": Harmful()}, tmp_path / "bad.pt")
    with pytest.raises(InputError, match="not a whole checkpoint"):
        load_checkpoint(tmp_path / "bad.pt")
    assert "code ran" not in capsys.readouterr().out


def test_a_file_of_another_program_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"expected a file made by `segedu train`"):
        load_checkpoint(tmp_path / "other.pt")


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("write failed")]
)
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch, error):
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"step": 1})

    def fail(state, unfinished):
        unfinished.write_bytes(b"half")
        raise error

    monkeypatch.setattr(checkpoints.torch, "save", fail)
    with pytest.raises(InputError, match="could not be written"):
        save_checkpoint(path, {"step": 2})
    assert load_checkpoint(path)["step"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_weights_of_another_shape_or_name_are_named(tmp_path):
    model = torch.nn.Linear(2, 3)
    path = tmp_path / "a.pt"
    for weights in ({"weight": torch.zeros(3, 2)}, {**model.state_dict(), "extra": torch.ones(1)}):
        with pytest.raises(InputError, match=r"another model: (bias|extra) has shape"):
            load_weights(model, weights, path)
    load_weights(model, {"weight": torch.ones(3, 2), "bias": torch.ones(3)}, path)
    assert model.weight.sum() == 6
