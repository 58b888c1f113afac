"""What `segedu export CHECKPOINT` means: one file that runs without torch."""

import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from torch import Tensor

from segedu.batch import pictures_in
from segedu.data import catalog
from segedu.data.images import read_image
from segedu.errors import InputError
from segedu.export import OnnxModel, disagreement, export_onnx
from segedu.predict import load_trained
from segedu.quantize import quantize_onnx


def export_checkpoint(
    checkpoint: Path, out: Path, *, int8: bool = False, calibrate: str = "", count: int = 32
) -> str:
    """Write the best model of a run of `segedu train` to an ONNX file; returns what was written.

    Args:
        checkpoint: The run's file.
        out: The new file.
        int8: Whether its numbers are 8-bit integers; otherwise they are float32.
        calibrate: For int8, a set's name or a folder of pictures, whose ranges are measured.
        count: How many pictures of it.

    Raises:
        InputError: If the checkpoint cannot be read or its model not be exported, or there is
            nothing to calibrate with.
    """
    if int8 and not calibrate:
        raise InputError(
            "--int8 needs pictures to measure ranges on; add --calibrate with the set, or the "
            "folder of pictures, that the model was trained on"
        )
    trained = load_trained(checkpoint, device="cpu")
    if not int8:
        worst = export_onnx(trained.model, out, trained.classes)
        return f"{out}: float32, {_size(out)}; its logits are torch's within {worst:.1g}"
    pictures = islice(_calibration(calibrate), count)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "float32.onnx"
        export_onnx(trained.model, whole, trained.classes)
        quantize_onnx(whole, out, pictures)
        share = out.stat().st_size / whole.stat().st_size
        apart = disagreement(OnnxModel(whole), OnnxModel(out))
    return (
        f"{out}: int8, {_size(out)}, {share:.2f} of float32's; logits differ from float32's by up "
        f"to {apart:.2g} on noise: score it on held-out pictures before it is used"
    )


def _calibration(source: str) -> Iterator[Tensor]:
    """The pictures of a folder, or of a set's training split."""
    if Path(source).is_dir():
        yield from map(read_image, pictures_in(Path(source)))
        return
    samples = catalog.load(source, split="train")
    for index in range(len(samples)):
        yield samples[index]["image"]


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.2f} MB"
