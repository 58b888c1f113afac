import os

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from test_predict import ABOUT, png, several_classes

from segedu import batch, predict, strips
from segedu.batch import Outcome, fingerprint, pictures_in, predict_folder
from segedu.checkpoints import save_checkpoint
from segedu.data.images import read_image, read_index
from segedu.data.scenes import Scenes
from segedu.errors import InputError
from segedu.models.layers import Views
from segedu.predict import load_trained, predict_file, predict_mask


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "run.pt"
    save_checkpoint(path, {"about": ABOUT, "best": several_classes().state_dict()})
    return path


@pytest.fixture
def trained(checkpoint):
    return load_trained(checkpoint, device="cpu")


@pytest.fixture
def folder(tmp_path):
    """Three scenes, a file that is no picture, and one that is not looked at."""
    path = tmp_path / "photos"
    path.mkdir()
    for i in range(3):
        scene = (Scenes(3)[i]["image"] * 255).to(torch.uint8).permute(1, 2, 0).numpy()
        png(path / f"{i}.png", scene)
    (path / "bad.jpg").write_text("no picture")
    (path / "notes.txt").write_text("no picture either")
    return path


def outcomes(trained, folder, out, made_by="us"):
    return [*predict_folder(trained, pictures_in(folder), out, made_by=made_by)]


def test_each_picture_is_predicted_and_each_failure_told(trained, folder, tmp_path):
    found = outcomes(trained, folder, tmp_path / "out")
    assert [outcome.picture.name for outcome in found] == ["0.png", "1.png", "2.png", "bad.jpg"]
    assert [outcome.done for outcome in found] == [True, True, True, False]
    assert "bad.jpg: cannot be read" in found[3].failure
    assert not any(outcome.failure for outcome in found[:3])
    mask = read_index(tmp_path / "out" / "1_mask.png")
    assert mask.equal(predict_mask(trained, read_image(folder / "1.png")))


def test_what_is_there_whole_is_not_predicted_again(trained, folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    outcomes(trained, folder, out)
    (out / "1_mask.png").unlink()
    seen = []
    monkeypatch.setattr(batch, "predict_file", lambda _, picture, __: seen.append(picture.name))
    found = outcomes(trained, folder, out)
    assert seen == ["1.png", "bad.jpg"]
    assert found[0] == Outcome(folder / "0.png", done=False)


def test_a_picture_that_has_changed_since_is_predicted_again(trained, folder, tmp_path):
    outcomes(trained, folder, tmp_path / "out")
    later = (tmp_path / "out" / "0_mask.png").stat().st_mtime + 10
    os.utime(folder / "0.png", (later, later))
    assert [outcome.done for outcome in outcomes(trained, folder, tmp_path / "out")[:2]] == [
        True,
        False,
    ]


def test_masks_of_another_checkpoint_are_not_mixed_in(trained, folder, tmp_path):
    outcomes(trained, folder, tmp_path / "out", made_by="one")
    with pytest.raises(InputError, match="another checkpoint"):
        outcomes(trained, folder, tmp_path / "out", made_by="two")


def test_a_fingerprint_tells_bytes_and_settings(tmp_path):
    (tmp_path / "a").write_bytes(b"weights")
    (tmp_path / "b").write_bytes(b"weighty")
    prints = [
        fingerprint(tmp_path / name, views=views)
        for name, views in (("a", []), ("b", []), ("a", [1.0]), ("a", []))
    ]
    assert len(set(prints)) == 3
    assert prints[0] == prints[3]


def test_two_pictures_whose_files_would_have_one_name_are_told_apart(trained, folder, tmp_path):
    Image.open(folder / "0.png").save(folder / "0.bmp")
    found = outcomes(trained, folder, tmp_path / "out")
    assert found[0].done
    assert "0.png: its files would have the names of 0.bmp's" in found[1].failure


def test_running_out_of_memory_on_one_picture_does_not_stop_the_others(
    trained, folder, tmp_path, monkeypatch
):
    def fail(trained, picture, out):
        if picture.name == "1.png":
            raise RuntimeError("CUDA out of memory.\nTried to allocate")
        return predict_file(trained, picture, out)

    monkeypatch.setattr(batch, "predict_file", fail)
    found = outcomes(trained, folder, tmp_path / "out")
    assert found[1].failure.endswith("1.png: could not be predicted (CUDA out of memory.)")
    assert found[2].done


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no picture"):
        pictures_in(tmp_path)


def test_a_large_picture_is_written_in_strips_with_the_same_labels(trained, tmp_path, monkeypatch):
    image = torch.cat([Scenes(3)[i]["image"] for i in range(3)], dim=2)
    array = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb")
    small = predict_file(trained, tmp_path / "a.tif", tmp_path / "small")
    monkeypatch.setattr(predict, "LARGE", 96 * 288 - 1)
    for name, value in (("STRIP_TILE", 64), ("MARGIN", 40), ("BLEND", 8)):
        monkeypatch.setattr(strips, name, value)
    large = predict_file(trained, tmp_path / "a.tif", tmp_path / "large")
    assert [path.name for path in large] == ["a_mask.tif", "a_overlay.tif"]
    pairs = [read_index(paths[0]) for paths in (small, large)]
    assert (pairs[0] == pairs[1]).float().mean() > 0.98  # ties alone
    same = pairs[0] == pairs[1]
    drawn = [read_image(paths[1]) for paths in (small, large)]
    assert torch.allclose(drawn[0][:, same], drawn[1][:, same], atol=1 / 254)


def test_a_large_picture_is_too_much_for_what_finds_objects(trained, tmp_path, monkeypatch):
    finder = predict.Trained(trained.model, trained.classes, trained.device, objects=True)
    path = png(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setattr(predict, "LARGE", 63)
    with pytest.raises(InputError, match="too many to find objects in"):
        predict_file(finder, path, tmp_path)


def test_views_look_again_and_replace_those_of_the_training(checkpoint, tmp_path):
    once = load_trained(checkpoint, device="cpu")
    twice = load_trained(checkpoint, device="cpu", views=[1.0])
    assert isinstance(twice.model, Views)
    image = torch.rand(1, 3, 24, 24)
    with torch.inference_mode():
        mirrored = once.model(image.flip(-1)).softmax(1).flip(-1)
        expected = ((once.model(image).softmax(1) + mirrored) / 2).log()
        assert torch.allclose(twice.model(image), expected, atol=1e-5)
    about = {**ABOUT, "options": {**ABOUT["options"], "views": [0.5, 2.0]}}
    weights = {f"model.{k}": v for k, v in several_classes().state_dict().items()}
    save_checkpoint(tmp_path / "views.pt", {"about": about, "best": weights})
    again = load_trained(tmp_path / "views.pt", device="cpu", views=[1.0])
    assert again.model.scales == (1.0,)
    assert not isinstance(again.model.model, Views)


def test_views_of_no_size_are_refused(checkpoint):
    with pytest.raises(InputError, match="views 0; expected scales above 0"):
        load_trained(checkpoint, device="cpu", views=[0.0])
