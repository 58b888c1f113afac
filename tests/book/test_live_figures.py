"""The live figures' numbers, in Node, are those of the Python functions that they stand for."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segedu.models.arithmetic import Layer
from segedu.models.mask_rcnn.nms import batched_nms, nms, soft_nms_linear
from segedu.palette import class_colours
from segedu.widgets import sampling, suppression
from segedu.widgets.convolutions import plot_convolution_step, plot_receptive_field
from segedu.widgets.overlap import plot_overlap

FIGURES = Path(__file__).resolve().parents[2] / "book" / "_static" / "figures"
SCRIPT = """
const [module, name, ...rest] = process.argv.slice(1);
const found = await import(module);
console.log(JSON.stringify(JSON.parse(rest[0]).map((given) => found[name](...given))));
"""


@pytest.fixture
def in_node():
    """Call a function of a figure's module, in Node, on several lists of arguments."""
    if shutil.which("node") is None:
        pytest.skip("needs Node.js; .ci/run runs where it is")

    def call(module, name, *inputs):
        path = (FIGURES / f"{module}.mjs").as_uri()
        given = [path, name, json.dumps(inputs)]
        command = ["node", "--input-type=module", "-e", SCRIPT, *given]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    return call


def test_four_pixels_have_torchs_probabilities_losses_and_gradients(in_node, random):
    inputs = [[2.0, -1.0, 0.5, -3.0], [8.0, -8.0, 0.0, 700.0]]
    inputs += (8 * torch.randn(20, 4, generator=random, dtype=torch.float64)).tolist()
    y = torch.tensor([1.0, 0, 0, 1], dtype=torch.float64)
    for logits, found in zip(
        inputs, in_node("four_pixels", "fourPixels", *zip(inputs)), strict=True
    ):
        z = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
        loss = F.binary_cross_entropy_with_logits(z, y, reduction="none")
        loss.sum().backward()
        assert torch.allclose(torch.tensor(found["p"]).double(), z.sigmoid(), atol=1e-7)
        assert torch.allclose(torch.tensor(found["loss"]).double(), loss, atol=1e-5)
        assert torch.allclose(torch.tensor(found["gradient"]).double(), z.grad, atol=1e-7)
        assert found["mean"] == pytest.approx(loss.mean().item())


def whole_numbers(generator, *ranges):
    """One random whole number from each range, ends included."""
    return [int(torch.randint(low, high + 1, (), generator=generator)) for low, high in ranges]


def test_overlap_has_the_pixels_iou_and_dice_of_the_plot(in_node, random):
    inputs = [(6, 0, 12), (0, 0, 12), (0, 0, 0), (24, -24, 3), (-24, 24, 24)]
    inputs += [whole_numbers(random, (-24, 24), (-24, 24), (0, 24)) for _ in range(10)]
    for given, found in zip(inputs, in_node("overlap", "overlap", *inputs), strict=True):
        figure = plot_overlap(*given)
        kinds = class_colours(4)[np.array(found["kinds"])]
        assert np.array_equal(kinds, figure.axes[0].images[0].get_array())
        assert found["hit"] + found["missed"] + found["falseAlarm"] == found["either"]
        assert f"hit {found['hit']} of {found['either']} pix" in figure.axes[0].get_title()
        [[iou], [dice]] = figure.axes[1].lines[2].get_data()
        assert found["iou"] == pytest.approx(iou, abs=1e-12)
        assert found["dice"] == pytest.approx(dice, abs=1e-12)
        plt.close(figure)
    curve = figure.axes[1].lines[0]
    points = in_node("overlap", "diceFromIou", *zip(curve.get_xdata().tolist()))
    assert points == pytest.approx(curve.get_ydata().tolist(), abs=1e-6)


def test_a_convolutions_step_has_torchs_outputs_and_the_plots_taps(in_node, random):
    given = [((3, 1, 0, 1), 0), ((4, 3, 2, 2), 99), ((1, 1, 0, 1), 48), ((4, 1, 0, 2), 5)]
    for _ in range(8):
        *layer, step = whole_numbers(random, (1, 4), (1, 3), (0, 2), (1, 2), (0, 60))
        given.append((layer, step))
    layers = [Layer(*layer) for layer, _ in given]
    inputs = [(vars(layer), step, 7) for layer, (_, step) in zip(layers, given, strict=True)]
    answers = in_node("convolution_step", "convolutionStep", *inputs)
    for layer, (_, step, _), found in zip(layers, inputs, answers, strict=True):
        picture = torch.arange(1.0, 50).reshape(1, 1, 7, 7)
        weight = torch.ones(1, 1, layer.kernel, layer.kernel)
        outputs = F.conv2d(
            picture, weight, stride=layer.stride, padding=layer.padding, dilation=layer.dilation
        )
        assert found["outputs"] == outputs[0, 0].tolist()
        assert found["padded"] == F.pad(picture, [layer.padding] * 4)[0, 0].tolist()
        figure = plot_convolution_step(layer, step, length=7)
        frames, [frame] = ([patch.get_xy() for patch in ax.patches] for ax in figure.axes)
        assert [(column - 0.5, row - 0.5) for row, column in found["taps"]] == frames
        assert (found["column"] - 0.5, found["row"] - 0.5) == frame
        plt.close(figure)


def test_a_transposed_convolutions_step_has_torchs_outputs_of_the_pixels_so_far(in_node, random):
    layers = [Layer(3), Layer(4, 3, 2, 2), Layer(1, 3, 1), Layer(2, 2, 0, 1), Layer(1, 1, 2)]
    layers += [Layer(*whole_numbers(random, (1, 4), (1, 3), (0, 1), (1, 2))) for _ in range(8)]
    steps = [15, 99, 0, *whole_numbers(random, *[(0, 15)] * (len(layers) - 3))]
    inputs = [(vars(layer), step, 4) for layer, step in zip(layers, steps, strict=True)]
    answers = in_node("convolution_step", "transposedStep", *inputs)
    for layer, step, found in zip(layers, steps, answers, strict=True):
        picture = torch.arange(1.0, 17)
        now = min(step, 15)
        so_far = picture.where(torch.arange(16) <= now, 0).reshape(1, 1, 4, 4)
        alone = picture.where(torch.arange(16) == now, 0).reshape(1, 1, 4, 4)
        if layer == Layer(1, 1, 2):  # padding cuts off all, which torch refuses
            assert found["outputs"] == []
            continue
        outputs, by_this = (
            F.conv_transpose2d(
                pixels,
                torch.ones(1, 1, layer.kernel, layer.kernel),
                stride=layer.stride,
                padding=layer.padding,
                dilation=layer.dilation,
            )[0, 0]
            for pixels in (so_far, alone)
        )
        assert found["outputs"] == outputs.tolist()
        inside = [[i, j] for i, j in found["taps"] if {i, j} <= set(range(found["side"]))]
        assert inside == by_this.nonzero().tolist()


def test_a_receptive_field_has_the_plots_numbers_dots_and_lines(in_node, random):
    chains = [[], [Layer(1)], [Layer(3, dilation=d) for d in (1, 2, 4)], [Layer(2, 2)] * 5]
    for _ in range(6):
        [number] = whole_numbers(random, (1, 4))
        some = [whole_numbers(random, (1, 5), (1, 2), (1, 4)) for _ in range(number)]
        chains.append([Layer(kernel, stride, 0, dilation) for kernel, stride, dilation in some])
    inputs = [([vars(layer) for layer in layers],) for layers in chains]
    for layers, found in zip(chains, in_node("receptive_field", "chain", *inputs), strict=True):
        figure = plot_receptive_field(layers)
        [ax] = figure.axes
        title = f"width {found['width']}, of which {found['count']} are seen; jump {found['jump']}"
        assert ax.get_title() == title
        dots = [places.get_offsets()[:, 0].tolist() for places in ax.collections]
        for level in found["levels"]:
            seen = dots.pop()
            assert [level["middles"][i] for i in level["seen"]] == pytest.approx(seen)
            assert level["middles"] == pytest.approx(dots.pop())
        lines = sorted(tuple(line.get_xdata()) for line in ax.lines)
        drawn = sorted(tuple(line) for level in found["levels"] for line in level["lines"])
        assert drawn == lines
        plt.close(figure)


def found_boxes(generator, number):
    """Random boxes, some of them equal or without area; scores, some equal; three classes."""
    corner = torch.randint(0, 60, (number, 2), generator=generator)
    size = torch.randint(0, 40, (number, 2), generator=generator)
    scores = torch.randint(0, 21, (number,), generator=generator) / 20
    labels = torch.randint(0, 3, (number,), generator=generator)
    boxes = torch.cat([corner, corner + size], dim=1).double()
    return {"boxes": boxes, "scores": scores.double(), "labels": labels}


def test_nms_of_all_kinds_keeps_what_the_packages_functions_keep(in_node, random):
    cases = [found_boxes(random, number) for number in (0, 1, 2, 13, 40, 40)]
    cases[1]["boxes"][:, 2:] = cases[1]["boxes"][:, :2]
    inputs = [(found, threshold) for found in cases for threshold in (0.0, 0.3, 0.5, 1.0)]
    lists = [([values.tolist() for values in found.values()], most) for found, most in inputs]
    together = in_node("nms", "nms", *[(*given[:2], most) for given, most in lists])
    apart = in_node("nms", "batchedNms", *[(*given, most) for given, most in lists])
    soft = in_node("nms", "softNmsLinear", *[(*given[:2], most) for given, most in lists])
    for i, (found, threshold) in enumerate(inputs):
        boxes, scores, labels = found.values()
        assert together[i] == nms(boxes, scores, threshold).tolist()
        assert apart[i] == batched_nms(boxes, scores, labels, threshold).tolist()
        kept, lowered = soft_nms_linear(boxes, scores, threshold)
        assert soft[i][0] == kept.tolist()
        assert soft[i][1] == pytest.approx(lowered.tolist(), abs=1e-6)


def test_the_boxes_of_the_figure_of_nms_are_thinned_as_in_the_plot(in_node):
    source = (FIGURES / "nms.mjs").read_text(encoding="utf-8")
    literal = re.search(r"FOUND = (\{.*?\n\})", source, flags=re.DOTALL)[1]
    found = json.loads(re.sub(r",(\s*[\]}])", r"\1", re.sub(r"(\w+):", r'"\1":', literal)))
    tensors = {name: torch.tensor(values) for name, values in found.items()}
    tensors["boxes"], tensors["scores"] = tensors["boxes"].double(), tensors["scores"].double()
    at_the_start = set()
    inputs = [(found, n / 20, kind) for kind in suppression.KINDS for n in range(21)]
    answers = in_node("nms", "thinned", *inputs)
    for (_, threshold, kind), (kept, scores) in zip(inputs, answers, strict=True):
        indices, left = suppression._thinned(tensors, threshold, kind)
        assert kept == indices.tolist()
        assert scores == pytest.approx(left.tolist(), abs=1e-6)
        if threshold == 0.5:
            at_the_start.add(tuple(left[left >= 0.3].tolist()))
    assert len(at_the_start) == 3  # the three kinds differ


def test_samples_have_the_places_boxes_and_weights_of_the_plot(in_node, random):
    boxes = [[1.6, 1.3, 5.4, 4.3], [0.5, 2.5, 3.5, 2.9], [0.0, 0.0, 8.0, 8.0], [4, 4, 4.4, 4.4]]
    low = 4 * torch.rand(8, 2, generator=random, dtype=torch.float64)
    size = 0.4 + 3.6 * torch.rand(8, 2, generator=random, dtype=torch.float64)
    boxes += torch.cat([low, low + size], dim=1).tolist()
    boxes = [tuple(map(float, box)) for box in boxes]
    rounded = in_node("samples", "roundedBox", *zip(boxes))
    assert rounded == [list(sampling.rounded_box(box)) for box in boxes]
    inputs = [
        (box, bins, samples, aligned)
        for box in boxes
        for bins, samples, aligned in ((1, 1, True), (2, 2, False), (3, 2, True), (2, 3, False))
    ]
    answers = in_node("samples", "sampledPlaces", *inputs)
    for (*given, aligned), found in zip(inputs, answers, strict=True):
        places = sampling.sampled_places(*given, aligned=aligned)
        assert np.allclose(found, places, atol=1e-12)
    edges = [0.0, 0.2, 0.5, 1.0, 3.75, 7.5, 8.0, *low.flatten().tolist()]
    for at, found in zip(edges, in_node("samples", "neighbours", *zip(edges)), strict=True):
        assert dict(found) == pytest.approx(sampling._neighbours(at), abs=1e-12)
    parts = [
        (low, high, which, number, whole)
        for low, high in ((2, 7), (1.6, 5.4))
        for which, number in ((0, 2), (1, 2), (2, 3))
        for whole in (True, False)
    ]
    for (*given, whole), found in zip(parts, in_node("samples", "part", *parts), strict=True):
        assert found == pytest.approx(sampling._part(*given, whole=whole), abs=1e-12)
