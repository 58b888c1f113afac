"""The live figures' numbers, in Node, are those of the Python functions that they stand for."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

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
