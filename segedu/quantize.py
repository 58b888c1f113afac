"""An ONNX file with 8-bit integers for weights and activations; chapter 22 derives what it does."""

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from segedu.errors import InputError
from segedu.export import OnnxModel, quietly, require
from segedu.files import whole_file


def quantize_onnx(
    path: Path,
    out: Path,
    pictures: Iterable[Float[Tensor, "3 _ _"]],
    *,
    per_channel: bool = True,
) -> None:
    """Write the int8 twin of a float32 ONNX file, whole or not at all.

    Static quantisation: an activation's range goes from the least to the greatest value that the
    pictures give it. Weights are symmetric about 0, biases have 32 bits. The graph keeps its form:
    pairs of QuantizeLinear and DequantizeLinear say where integers are, and onnxruntime computes
    between them with integers where it has kernels for it.

    Args:
        path: As `segedu.export.export_onnx` writes it.
        out: The new file.
        pictures: In [0, 1], of any size: some dozens, such as the model was trained on and will
            see.
        per_channel: Whether each output channel of a weight has a scale of its own.

    Raises:
        InputError: If a package is missing, there is no picture, or a file cannot be read or
            written.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018, section 2.1, for the numbers; Krishnamoorthi,
    "Quantizing deep convolutional networks for efficient inference", 2018, sections 2 and 3.1.
    """
    require(("onnx", "onnxruntime"))
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = OnnxModel(path, threads=1)  # so that a file that is none is named in one line
    reader = _Reader(pictures, model.input_name)
    with tempfile.TemporaryDirectory() as folder, quietly():
        prepared, made = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(made),
            reader,
            quant_format=QuantFormat.QDQ,
            per_channel=per_channel,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        try:
            with whole_file(out) as unfinished:
                shutil.copyfile(made, unfinished)
        except OSError as error:
            raise InputError(
                f"{out}: could not be written ({error.strerror or error}); free some space or "
                "choose another file with -o"
            ) from error


class _Reader:
    """Hands one picture after another to onnxruntime, as its CalibrationDataReader does."""

    def __init__(self, pictures: Iterable[Tensor], name: str) -> None:
        self.pictures = list(pictures)
        self.name = name
        if not self.pictures:
            raise InputError("there is no picture to calibrate with; expected some dozens")
        self.left = iter(self.pictures)

    def get_next(self) -> dict[str, Any] | None:
        """A batch of the next picture; None after the last."""
        image = next(self.left, None)
        if image is None:
            return None
        return {self.name: image.as_subclass(Tensor)[None].contiguous().numpy()}
