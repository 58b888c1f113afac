"""From a trained model to an ONNX file, which runs where there is no torch; chapter 22 uses it.

The file takes images (B, 3, H, W) in [0, 1], of any number and size, and gives logits of the same
size: normalisation is inside, the softmax is not. It says its classes' names itself.
"""

import contextlib
import importlib.util
import io
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segedu.errors import InputError
from segedu.files import whole_file
from segedu.models.exportable import as_graph, exportable

NEEDED = ("onnx", "onnxruntime", "onnxscript")
"""What comes with the extra `chapters`, and only this module and `segedu.quantize` import."""
EXAMPLE = (2, 3, 70, 90)
"""The batch from which the graph is drawn; none of its sizes is in the graph."""
OTHERS = ((2, 3, 70, 90), (1, 3, 64, 64), (1, 3, 53, 101), (3, 3, 47, 36))
"""Batches on which a file must agree with its model before it is kept."""
TOLERANCE = 1e-4
"""By how much logits may differ: absolute up to 1, as a share of the largest beyond."""


class OnnxModel(nn.Module):
    """An ONNX file as a module: images (B, 3, H, W) in [0, 1] in, logits (B, C, H, W) out.

    It can be scored and can predict as any model can; it cannot be trained. It computes on the
    CPU, and gives its logits on the images' device.

    Args:
        path: Of a file written here, or by anyone with one input and one output of that form.
        threads: On which to compute; 0 for all cores.

    Attributes:
        classes: The name of each class, as the file says; none if it does not.

    Raises:
        InputError: If the file is missing, or onnxruntime cannot read it or is not installed.
    """

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        super().__init__()
        require(NEEDED[1:2])
        import onnxruntime as ort

        if not path.is_file():
            raise InputError(f"{path}: no such file; make one with `segedu export`")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # no warnings of its optimiser
        try:
            self.session = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise InputError(
                f"{path}: onnxruntime cannot read it ({_first_line(error)}); export it again"
            ) from error
        said = self.session.get_modelmeta().custom_metadata_map
        self.classes = tuple(json.loads(said.get("classes", "[]")))
        self.input_name = self.session.get_inputs()[0].name

    def forward(self, image: Tensor) -> Tensor:
        """Class scores (logits), at the images' resolution."""
        pixels = np.ascontiguousarray(image.detach().cpu().numpy())
        (logits,) = self.session.run(None, {self.input_name: pixels})
        return torch.from_numpy(logits).to(image.device)


def export_onnx(model: nn.Module, path: Path, classes: Sequence[str]) -> float:
    """Write a model to an ONNX file that agrees with it, whole or not at all.

    Before the file is kept, onnxruntime computes the logits of batches of four sizes from it, and
    they must be the model's. A model that looks several times (`Views`) is written with one look.

    Args:
        model: Labels pixels: from images (B, 3, H, W) in [0, 1] to logits; is left as it is.
        path: The file; by custom it ends in ".onnx".
        classes: The names of its classes.

    Returns:
        The largest difference between the file's logits and the model's.

    Raises:
        InputError: If a package is missing, the model finds objects, the file cannot be written,
            or its logits are not the model's.
    """
    require(NEEDED)
    plain = exportable(model)
    try:
        with whole_file(path) as unfinished:
            _write(plain, unfinished, classes)
            worst = disagreement(plain, OnnxModel(unfinished))
            if not worst <= TOLERANCE:
                raise InputError(
                    f"{path}: the exported model's logits differ from torch's by {worst:.2g}, "
                    f"expected at most {TOLERANCE:g}; nothing was written: the model has an "
                    "operation that does not export with any size"
                )
    except OSError as error:
        raise InputError(
            f"{path}: could not be written ({error.strerror or error}); free some space or choose "
            "another file with -o"
        ) from error
    return worst


@torch.inference_mode()
def disagreement(model: nn.Module, exported: nn.Module) -> float:
    """By how much logits differ at most, over batches of several sizes; see `TOLERANCE`."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for shape in OTHERS:
        images = torch.rand(shape, generator=generator)
        expected = model(images)
        scale = max(1.0, expected.abs().max().item())
        worst = max(worst, ((exported(images) - expected).abs().max() / scale).item())
    return worst


def require(packages: Sequence[str]) -> None:
    """Nothing, if the packages are installed.

    Raises:
        InputError: If one is not.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"exporting needs the package {missing[0]}, which is not installed; install it with: "
            "pip install 'segedu[chapters]'"
        )


def _write(model: nn.Module, path: Path, classes: Sequence[str]) -> None:
    """The model's graph, with sizes left open and the names of the classes."""
    import onnx

    images = torch.rand(EXAMPLE)
    with torch.no_grad(), quietly():
        program: Any = torch.onnx.export(
            as_graph(model),
            (images,),
            dynamo=True,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
            verbose=False,
        )
    proto = program.model_proto
    for axis, name in zip((0, 2, 3), ("batch", "height", "width"), strict=True):
        proto.graph.output[0].type.tensor_type.shape.dim[axis].dim_param = name
    for node in proto.graph.node:
        del node.metadata_props[:]  # where in the source each stood, with this machine's paths
        node.doc_string = ""
    del proto.graph.value_info[:]
    del proto.graph.metadata_props[:]
    onnx.helper.set_model_props(
        proto, {"classes": json.dumps(list(classes)), "image": "RGB in [0, 1]"}
    )
    path.write_bytes(proto.SerializeToString())


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep back the exporters' own remarks, which are not the user's to act on."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0][:160]
