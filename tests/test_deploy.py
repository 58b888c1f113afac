import pytest
from jaxtyping import config as jaxtyping_config
from test_batch import checkpoint, folder  # noqa: F401 - fixtures
from typer.testing import CliRunner

from segedu.cli import app
from segedu.data.images import read_image
from segedu.data.scenes import CLASSES
from segedu.deploy import export_checkpoint
from segedu.errors import InputError
from segedu.export import OnnxModel


@pytest.fixture(autouse=True)
def _sizes_as_symbols():
    jaxtyping_config.update("jaxtyping_disable", True)  # noqa: FBT003
    yield
    jaxtyping_config.update("jaxtyping_disable", False)  # noqa: FBT003


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_checkpoint_becomes_a_file_with_its_classes(checkpoint, tmp_path):  # noqa: F811
    result = run("export", checkpoint, "-o", tmp_path / "a.onnx")
    assert result.exit_code == 0
    assert "a.onnx: float32, 0.0" in result.stdout
    assert OnnxModel(tmp_path / "a.onnx").classes == CLASSES


@pytest.mark.parametrize("source", ["scenes", "folder"])
def test_int8_is_calibrated_on_a_set_or_a_folder(checkpoint, folder, tmp_path, source):  # noqa: F811
    (folder / "bad.jpg").unlink()
    arguments = ["--int8", "--calibrate", folder if source == "folder" else source]
    result = run("export", checkpoint, "-o", tmp_path / "q.onnx", *arguments, "--pictures", 4)
    assert result.exit_code == 0, result.output
    assert "q.onnx: int8" in result.stdout
    model = OnnxModel(tmp_path / "q.onnx")
    assert model.classes == CLASSES
    assert model(read_image(folder / "0.png")[None]).shape == (1, 6, 96, 96)


def test_int8_without_pictures_is_refused(checkpoint, tmp_path):  # noqa: F811
    with pytest.raises(InputError, match="add --calibrate"):
        export_checkpoint(checkpoint, tmp_path / "q.onnx", int8=True)


def test_a_folder_is_predicted_with_a_line_for_each_failure_and_status_one(
    checkpoint,  # noqa: F811
    folder,  # noqa: F811
    tmp_path,
):
    result = run("predict", checkpoint, folder, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "3 predicted, 0 there already, 1 failed" in result.stdout
    assert result.stderr.count("segedu: ") == 1
    assert "bad.jpg: cannot be read" in result.stderr
    (folder / "bad.jpg").unlink()
    again = run("predict", checkpoint, folder, "-o", tmp_path / "out")
    assert again.exit_code == 0
    assert "0 predicted, 3 there already, 0 failed" in again.stdout


def test_a_single_picture_may_be_looked_at_often(checkpoint, folder, tmp_path):  # noqa: F811
    looks = ["--views", "1", "--views", "1.5"]
    result = run("predict", checkpoint, folder / "0.png", "-o", tmp_path / "out", *looks)
    assert result.exit_code == 0
    assert result.stdout.split() == [
        str(tmp_path / "out" / name) for name in ("0_mask.png", "0_overlay.png")
    ]
    other = run("predict", checkpoint, folder, "-o", tmp_path / "out", "--views", "2")
    assert other.exit_code == 1
