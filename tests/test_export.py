import errno
import json

import numpy as np
import onnx
import pytest
import torch
from jaxtyping import config as jaxtyping_config
from torch import nn

from segedu import export
from segedu.errors import InputError
from segedu.export import OnnxModel, disagreement, export_onnx
from segedu.files import whole_file
from segedu.models.exportable import PartMeans, SameConvNode, as_graph, exportable
from segedu.models.layers import Views
from segedu.models.mobilenet import SameConv2d
from segedu.models.registry import MODELS, build
from segedu.models.unet import UNet

NAMES = ("ground", "disc", "ring")
QUICK = {"unet", "pspnet_resnet34", "deeplab_lfov_vgg16", "deeplabv3plus_resnet34"}
"""Models that take a few seconds each; the others are marked slow."""


@pytest.fixture(autouse=True)
def _sizes_as_symbols():
    """An exporter's sizes are symbols: comparing them, as shape checks do, would fix them."""
    jaxtyping_config.update("jaxtyping_disable", True)  # noqa: FBT003
    yield
    jaxtyping_config.update("jaxtyping_disable", False)  # noqa: FBT003


def lively(model):
    """The model with batch normalisation that has seen data: folding it wrongly shows."""
    generator = torch.Generator().manual_seed(0)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.2, 0.2, generator=generator)
            part.running_var.uniform_(0.5, 1.5, generator=generator)
    return model


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return lively(UNet(3, widths=(4, 8, 8)))


@pytest.fixture(scope="module")
def file(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    jaxtyping_config.update("jaxtyping_disable", True)  # noqa: FBT003
    export_onnx(small, path, NAMES)
    return path


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
        for name, entry in MODELS.items()
        if not entry.objects
    ],
)
def test_each_architecture_gives_the_same_logits_from_its_file(name, tmp_path):
    torch.manual_seed(0)
    model = lively(build(name, 3))
    worst = export_onnx(model, tmp_path / "a.onnx", NAMES)
    assert worst <= 1e-4
    assert model.training
    exported = OnnxModel(tmp_path / "a.onnx", threads=1)
    images = torch.rand(2, 3, 59, 38)  # a size that was not tried before it was written
    with torch.inference_mode():
        expected = exportable(model)(images)
    assert torch.allclose(exported(images), expected, atol=1e-4)


def test_batch_height_and_width_are_open_and_named(file):
    graph = onnx.load(file).graph
    for value, channels in ((graph.input[0], 3), (graph.output[0], 3)):
        dims = value.type.tensor_type.shape.dim
        assert [dim.dim_param or dim.dim_value for dim in dims] == [
            "batch",
            channels,
            "height",
            "width",
        ]
    assert (graph.input[0].name, graph.output[0].name) == ("image", "logits")


def test_the_file_names_its_classes_and_no_path_of_this_machine(file):
    assert OnnxModel(file).classes == NAMES
    assert b"/segedu/" not in file.read_bytes()
    assert not any(node.metadata_props for node in onnx.load(file).graph.node)


def test_the_file_normalises_and_takes_no_softmax(file, small):
    images = torch.rand(1, 3, 20, 30)
    with torch.inference_mode():
        expected = small.eval()(images)
    found = OnnxModel(file)(images)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found.exp().sum(1), torch.ones(1, 20, 30), atol=1e-2)


def test_a_model_that_looks_often_is_written_with_one_look(small, file, tmp_path):
    export_onnx(Views(small, [1.0, 2.0]), tmp_path / "views.onnx", NAMES)
    images = torch.rand(1, 3, 24, 24)
    assert torch.allclose(OnnxModel(tmp_path / "views.onnx")(images), OnnxModel(file)(images))


def test_a_model_that_sees_a_shrunk_picture_is_exported(tmp_path):
    model = build("unet", 3, shrink=2, widths=(4, 8))
    assert export_onnx(model, tmp_path / "a.onnx", NAMES) <= 1e-4


@pytest.mark.parametrize("name", [name for name, entry in MODELS.items() if entry.objects])
def test_a_model_that_finds_objects_is_refused_and_told_why(name, tmp_path):
    with pytest.raises(InputError, match="regions it looks at hangs on what it sees"):
        export_onnx(build(name, 3), tmp_path / "a.onnx", NAMES)
    assert list(tmp_path.iterdir()) == []


class SizeMatters(nn.Module):
    """Pads to a multiple of 8 by arithmetic that an exporter takes for the example's alone."""

    def forward(self, image):
        beyond = image.shape[2] % 2
        return image * (2 if beyond else 1)


def test_what_exports_for_one_size_only_is_not_written(tmp_path):
    with pytest.raises(InputError, match="differ from torch's by"):
        export_onnx(SizeMatters(), tmp_path / "a.onnx", NAMES)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(small, tmp_path, monkeypatch):
    def full(model, path, classes):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export, "_write", full)
    with pytest.raises(InputError, match="No space left"):
        export_onnx(small, tmp_path / "a.onnx", NAMES)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_what_installs_it(small, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "NEEDED", ("no_such_package",))
    with pytest.raises(InputError, match=r"no_such_package.*pip install 'segedu\[chapters\]'"):
        export_onnx(small, tmp_path / "a.onnx", NAMES)


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        OnnxModel(tmp_path / "a.onnx")
    (tmp_path / "a.onnx").write_text("no graph")
    with pytest.raises(InputError, match="cannot read it"):
        OnnxModel(tmp_path / "a.onnx")


def test_a_file_of_someone_else_has_no_classes(file, tmp_path):
    proto = onnx.load(file)
    del proto.metadata_props[:]
    with whole_file(tmp_path / "b.onnx") as path:
        path.write_bytes(proto.SerializeToString())
    assert OnnxModel(tmp_path / "b.onnx").classes == ()


def test_disagreement_is_the_largest_difference_by_hand(small):
    class Off(nn.Module):
        def forward(self, image):
            logits = small.eval()(image).clone()
            logits[0, 0, 0, 0] += 0.25
            return logits

    assert disagreement(small.eval(), Off()) == pytest.approx(0.25, abs=0.1)
    assert disagreement(small, small) == 0


@pytest.mark.parametrize("size", [(6, 6), (7, 13), (3, 2), (1, 9)])
@pytest.mark.parametrize("parts", [2, 3, 6])
def test_means_of_parts_are_torchs_adaptive_pooling(parts, size):
    x = torch.randn(2, 4, *size)
    assert torch.allclose(PartMeans(parts)(x), nn.AdaptiveAvgPool2d(parts)(x), atol=1e-6)


def test_the_graph_has_each_layer_whose_arithmetic_hangs_on_the_size_replaced():
    model = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d(3), SameConv2d(3, 4, 3, stride=2)
    )
    kinds = [type(part) for part in as_graph(model)]
    assert kinds == [nn.AdaptiveAvgPool2d, PartMeans, SameConvNode]
    assert [type(part) for part in model][1:] == [nn.AdaptiveAvgPool2d, SameConv2d]


@pytest.mark.parametrize("bias", [True, False])
def test_tensorflows_padding_is_exported_for_any_size(bias, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(
        SameConv2d(3, 4, 5, stride=2, bias=bias), SameConv2d(4, 4, 3, stride=2, groups=2, bias=bias)
    ).eval()
    graph = tmp_path / "a.onnx"
    export._write(model, graph, NAMES)
    for shape in ((1, 3, 33, 30), (2, 3, 64, 31), (1, 3, 5, 6)):
        images = torch.rand(shape)
        with torch.inference_mode():
            assert torch.allclose(OnnxModel(graph)(images), model(images), atol=1e-5)


def test_metadata_is_json(file):
    said = {prop.key: prop.value for prop in onnx.load(file).metadata_props}
    assert json.loads(said["classes"]) == list(NAMES)
    assert "RGB in [0, 1]" in said["image"]


def test_images_come_back_on_their_own_device_and_need_not_be_contiguous(file):
    images = torch.rand(1, 20, 30, 3).permute(0, 3, 1, 2)
    assert np.allclose(OnnxModel(file)(images), OnnxModel(file)(images.contiguous()))


@pytest.mark.gpu
def test_a_model_on_a_gpu_is_exported_and_stays_there(small, tmp_path):
    model = UNet(3, widths=(4, 8)).cuda()
    assert export_onnx(model, tmp_path / "a.onnx", NAMES) <= 1e-4
    assert next(model.parameters()).device.type == "cuda"
    images = torch.rand(1, 3, 24, 24, device="cuda")
    assert OnnxModel(tmp_path / "a.onnx")(images).device.type == "cuda"
