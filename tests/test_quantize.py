import errno

import onnx
import pytest
import torch
from jaxtyping import config as jaxtyping_config
from test_export import NAMES, lively

from segedu import quantize
from segedu.errors import InputError
from segedu.export import OnnxModel, export_onnx
from segedu.models.unet import UNet
from segedu.quantize import quantize_onnx


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("onnx") / "float32.onnx"
    jaxtyping_config.update("jaxtyping_disable", True)  # noqa: FBT003
    export_onnx(lively(UNet(3, widths=(16, 64))), path, NAMES)
    jaxtyping_config.update("jaxtyping_disable", False)  # noqa: FBT003
    return path


@pytest.fixture
def pictures(random):
    return [torch.rand(3, 32, 40, generator=random) for _ in range(4)]


def weights_of(path):
    return {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}


def test_eight_bits_keep_the_logits_nearly_and_a_quarter_of_the_bytes(file, pictures, tmp_path):
    quantize_onnx(file, tmp_path / "int8.onnx", pictures)
    whole, eight = OnnxModel(file), OnnxModel(tmp_path / "int8.onnx")
    expected, found = (model(pictures[0][None]) for model in (whole, eight))
    assert (found - expected).norm() < 0.1 * expected.norm()
    assert (tmp_path / "int8.onnx").stat().st_size < 0.35 * file.stat().st_size
    assert eight.classes == NAMES


@pytest.mark.parametrize("per_channel", [True, False])
def test_the_whole_numbers_are_the_weights_over_their_scale(file, pictures, tmp_path, per_channel):
    quantize_onnx(file, tmp_path / "int8.onnx", pictures, per_channel=per_channel)
    weights, stored = weights_of(file), weights_of(tmp_path / "int8.onnx")
    name = max((n for n, w in weights.items() if w.ndim == 4), key=lambda n: weights[n].size)
    w = torch.from_numpy(weights[name].copy())
    peak = w.abs().flatten(1).amax(1)[:, None, None, None] if per_channel else w.abs().amax()
    whole = torch.from_numpy(stored[f"{name}_quantized"].copy()).float()
    assert (whole - w / (peak / 127)).abs().max() <= 1
    assert whole.abs().max() == 127
    assert stored[f"{name}_scale"].size == (len(w) if per_channel else 1)


def test_pictures_of_several_sizes_calibrate(file, tmp_path):
    sizes = [torch.rand(3, 32, 40), torch.rand(3, 17, 64).flip(2)]
    quantize_onnx(file, tmp_path / "int8.onnx", iter(sizes))
    assert OnnxModel(tmp_path / "int8.onnx")(torch.rand(2, 3, 21, 33)).shape == (2, 3, 21, 33)


def test_a_range_that_is_too_narrow_cuts_off_what_lies_beyond(file, pictures, tmp_path):
    quantize_onnx(file, tmp_path / "good.onnx", pictures)
    quantize_onnx(file, tmp_path / "bad.onnx", [0.5 + 0.01 * image for image in pictures])
    expected = OnnxModel(file)(pictures[0][None])
    good, bad = (
        (OnnxModel(tmp_path / f"{name}.onnx")(pictures[0][None]) - expected).norm()
        for name in ("good", "bad")
    )
    assert bad > 3 * good


def test_nothing_to_calibrate_with_is_refused(file, tmp_path):
    with pytest.raises(InputError, match="no picture to calibrate with"):
        quantize_onnx(file, tmp_path / "int8.onnx", [])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_none_is_named(pictures, tmp_path):
    with pytest.raises(InputError, match=r"none\.onnx: no such file"):
        quantize_onnx(tmp_path / "none.onnx", tmp_path / "int8.onnx", pictures)


def test_a_full_disk_leaves_nothing(file, pictures, tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(quantize.shutil, "copyfile", full)
    with pytest.raises(InputError, match="No space left"):
        quantize_onnx(file, tmp_path / "int8.onnx", pictures)
    assert list(tmp_path.iterdir()) == []
