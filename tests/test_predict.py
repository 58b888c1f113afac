import errno

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from segedu import predict, strips
from segedu.checkpoints import save_checkpoint
from segedu.data.images import read_image, read_index
from segedu.data.scenes import CLASSES, Scenes
from segedu.errors import InputError
from segedu.models.registry import build
from segedu.models.unet import UNet
from segedu.palette import class_colours
from segedu.predict import load_trained, predict_file, predict_mask, predict_objects

ABOUT = {"model": "unet", "classes": list(CLASSES), "options": {"widths": [4, 8]}}


def several_classes():
    """A network with random weights that finds each class about equally often."""
    torch.manual_seed(1)
    model = build("unet", len(CLASSES), widths=(4, 8)).eval()
    with torch.no_grad():
        logits = model(Scenes(1)[0]["image"].as_subclass(torch.Tensor)[None])
        model.classify.bias -= logits.median(dim=3).values.median(dim=2).values[0]
    return model


@pytest.fixture
def checkpoint(tmp_path):
    model = several_classes()
    other = build("unet", len(CLASSES), widths=(4, 8))
    path = tmp_path / "run.pt"
    state = {"about": ABOUT, "best": model.state_dict(), "model": other.state_dict()}
    save_checkpoint(path, state)
    return path


@pytest.fixture
def trained(checkpoint):
    return load_trained(checkpoint, device="cpu")


def png(path, array):
    Image.fromarray(array).save(path)
    return path


def test_the_best_weights_are_the_ones_used(checkpoint, trained):
    assert trained.model.classify.bias.equal(several_classes().classify.bias)
    assert not trained.model.training
    assert trained.classes == CLASSES


@pytest.mark.parametrize(
    ("array", "size"),
    [
        (np.zeros((1, 1, 3), np.uint8), (1, 1)),
        (np.full((37, 53, 4), 99, np.uint8), (37, 53)),
        (np.full((20, 31), 99, np.uint8), (20, 31)),
        (np.full((31, 20), 40000, np.uint16), (31, 20)),
    ],
    ids=["one pixel", "RGBA", "grey", "16 bits"],
)
def test_mask_and_overlay_have_the_size_of_the_picture(tmp_path, trained, array, size):
    paths = predict_file(trained, png(tmp_path / "a.png", array), tmp_path / "new" / "out")
    assert [path.name for path in paths] == ["a_mask.png", "a_overlay.png"]
    assert read_index(paths[0]).shape == size
    assert read_image(paths[1]).shape == (3, *size)


def test_the_mask_holds_the_most_likely_class_and_shows_its_colour(tmp_path, trained):
    scene = Scenes(1)[0]["image"]
    array = (scene * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    mask_path, overlay_path = predict_file(trained, png(tmp_path / "a.png", array), tmp_path)
    with torch.inference_mode():
        expected = trained.model(scene.as_subclass(torch.Tensor)[None]).argmax(1)[0]
    assert read_index(mask_path).equal(expected)
    assert len(expected.unique()) > 1
    with Image.open(mask_path) as file:
        colours = np.asarray(file.convert("RGB"))
    assert (colours == class_colours(6)[expected]).all()
    overlay = read_image(overlay_path)
    assert (overlay != scene).any(0).equal(expected > 0)


def test_a_picture_on_its_side_gets_an_upright_mask(tmp_path, trained):
    photo = Image.new("RGB", (16, 8))
    exif = photo.getexif()
    exif[0x0112] = 6
    photo.save(tmp_path / "a.jpg", exif=exif)
    assert read_index(predict_file(trained, tmp_path / "a.jpg", tmp_path)[0]).shape == (16, 8)


def test_tiles_give_what_the_whole_picture_gives(monkeypatch, trained):
    image = torch.cat([Scenes(4)[i]["image"] for i in range(4)], dim=2)[:, :, :331]
    whole = predict_mask(trained, image)
    monkeypatch.setattr(predict, "TILE", 64)
    monkeypatch.setattr(predict, "MARGIN", 40)
    assert predict_mask(trained, image).equal(whole)


def test_the_margin_of_a_strips_tiles_is_half_of_what_the_model_sees_and_the_blend():
    small, large = UNet(3, widths=(4, 8)).eval(), UNet(3, widths=(4, 4, 4, 4)).eval()
    assert strips.margin_of(small) == 64  # 9 to a side, 8 for slack, 16 to blend
    assert strips.margin_of(large) == 96  # 51 to a side
    assert strips.margin_of(torch.nn.Sequential(small, Everything())) == strips.MARGIN


class Everything(torch.nn.Module):
    """Each pixel sees all others."""

    def forward(self, x):
        return x + x.mean((2, 3), keepdim=True)


def test_a_full_disk_leaves_nothing(tmp_path, trained, monkeypatch):
    picture = png(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    save = Image.Image.save

    def fail(self, path, **options):
        save(self, path, **options)
        if "overlay" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(InputError, match="No space left"):
        predict_file(trained, picture, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_checkpoint_that_does_not_say_its_model_is_refused(tmp_path):
    save_checkpoint(tmp_path / "a.pt", {"about": {}, "best": {}})
    with pytest.raises(InputError, match="does not say which model"):
        load_trained(tmp_path / "a.pt")


@pytest.fixture
def finder(tmp_path):
    """A checkpoint of a small Mask R-CNN with random weights that takes everything for a disc."""
    torch.manual_seed(0)
    about = {"model": "maskrcnn", "classes": list(CLASSES), "options": {"operators": "torchvision"}}
    model = build("maskrcnn", len(CLASSES), operators="torchvision")
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias[1] = 5
    save_checkpoint(tmp_path / "run.pt", {"about": about, "best": model.state_dict()})
    return load_trained(tmp_path / "run.pt", device="cpu")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pycocotools' own, with NumPy 2
def test_objects_are_written_as_pycocotools_reads_them(finder, tmp_path):
    picture = png(
        tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)
    )
    path, overlay = predict_file(finder, picture, tmp_path / "out")
    assert (path.name, overlay.name) == ("a_objects.json", "a_overlay.png")
    read = COCO(path)
    (image,) = read.loadImgs(read.getImgIds())
    assert (image["file_name"], image["height"], image["width"]) == ("a.png", 70, 90)
    expected = predict_objects(finder, read_image(picture))
    annotations = read.loadAnns(read.getAnnIds())
    assert len(annotations) == len(expected.labels) > 0
    assert all(found["score"] >= 0.5 for found in annotations)
    for found, mask in zip(annotations, expected.masks.numpy(), strict=True):
        assert np.array_equal(read.annToMask(found), mask)
    drawn = read_image(overlay).as_subclass(torch.Tensor)
    covered = expected.masks.any(dim=0)
    changed = (drawn - read_image(picture)).abs().amax(dim=0) > 1 / 254
    assert not (changed & ~covered).any()
    assert changed[covered].float().mean() > 0.9


def test_objects_that_are_not_sure_enough_are_left_out(finder):
    image = torch.rand(3, 64, 64)
    every, none = (predict_objects(finder, image, least=least) for least in (0.0, 1.1))
    assert len(every.labels) > len(none.labels) == 0
