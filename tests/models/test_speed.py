import sys

import pytest
import torch
from torch import nn

from segedu.errors import InputError
from segedu.models import speed
from segedu.models.registry import MODELS, build
from segedu.models.speed import blocks, compile_in_place, recompute_blocks, what_compiling_lacks
from segedu.models.unet import UNet
from segedu.profiling.memory import kept_bytes

CPU = torch.device("cpu")
IMAGES = torch.rand(2, 3, 32, 32)


class WithDropout(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.last(self.block(x))


def two(make):
    torch.manual_seed(0)
    plain = make()
    changed = make()
    changed.load_state_dict(plain.state_dict())
    recompute_blocks(changed)
    return plain, changed


def gradients(model):
    torch.manual_seed(1)  # the dice of dropout
    model.zero_grad()
    model(IMAGES).square().mean().backward()
    return [weight.grad.clone() for weight in model.parameters()]


@pytest.mark.parametrize(
    "make", [lambda: UNet(4, widths=(4, 8, 8)), WithDropout], ids=["unet", "dropout"]
)
def test_recomputed_blocks_give_the_same_gradients_and_running_means(make):
    plain, changed = two(make)
    for _ in range(2):
        for a, b in zip(gradients(plain), gradients(changed), strict=True):
            assert torch.allclose(a, b, atol=1e-6)
    for name, value in plain.state_dict().items():
        assert value.equal(changed.state_dict()[name]), name


def test_recomputed_blocks_keep_less():
    plain, changed = two(lambda: UNet(4, widths=(4, 8, 8)))
    kept = [kept_bytes(lambda m=m: m(IMAGES), but=m.parameters()) for m in (plain, changed)]
    assert kept[1] < 0.6 * kept[0]


def test_evaluation_and_prediction_compute_once(monkeypatch):
    _, changed = two(WithDropout)
    monkeypatch.setattr(speed, "checkpoint", lambda *_, **__: pytest.fail("computed again"))
    changed.eval()(IMAGES)
    with torch.no_grad():
        changed.train()(IMAGES)


def test_blocks_are_the_outermost_with_weights():
    inner = nn.Sequential(nn.Conv2d(1, 1, 1))
    model = nn.ModuleDict(
        {"a": nn.Sequential(inner), "b": nn.Sequential(nn.ReLU()), "c": nn.ModuleList([inner])}
    )
    assert list(blocks(model)) == [model["a"], inner]
    listed = nn.ModuleList([nn.Conv2d(1, 1, 1), UNet(2, widths=(2, 4)), nn.ModuleList([inner])])
    assert list(blocks(nn.ModuleDict({"a": listed}))) == [listed[1], inner]


def test_the_blocks_of_a_model_within_another_are_its_own():
    class Wrapped(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

    net = UNet(2, widths=(4, 8))
    assert list(blocks(Wrapped(net))) == list(blocks(net))
    assert net not in blocks(Wrapped(net))


def test_a_model_without_blocks_is_refused():
    with pytest.raises(InputError, match="Conv2d has no blocks"):
        recompute_blocks(nn.Conv2d(1, 1, 1))


@pytest.mark.parametrize(
    "name", [n for n in MODELS if not MODELS[n].objects and n.endswith(("unet", "lite0", "b0"))]
)
def test_models_of_the_registry_can_be_recomputed(name):
    model = build(name, 3)
    recompute_blocks(model)
    model(torch.rand(2, 3, 64, 64)).mean().backward()
    assert all(weight.grad is not None for weight in model.parameters() if weight.requires_grad)


def test_compiling_keeps_the_names_of_the_weights(monkeypatch):
    monkeypatch.setattr(speed, "what_compiling_lacks", lambda _: "")
    model = UNet(2, widths=(2, 4))
    before, called = list(model.state_dict()), []
    monkeypatch.setattr(nn.Module, "compile", lambda self: called.append(self))  # noqa: PLW0108 - bound
    compile_in_place(model, CPU)
    assert called == [model]
    assert list(model.state_dict()) == before


def test_compiling_without_a_compiler_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(speed.shutil, "which", lambda _: None)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(
        InputError,
        match=r"compile: there is no C\+\+ compiler \(g\+\+ or clang\+\+\); leave it out",
    ):
        compile_in_place(nn.ReLU(), CPU)


@pytest.mark.parametrize(
    ("platform", "named", "tried"),
    [("linux", "", ["g++", "clang++"]), ("win32", "", ["cl"]), ("linux", "icpx", ["icpx"])],
)
def test_the_compiler_is_what_the_system_or_the_user_names(monkeypatch, platform, named, tried):
    asked = []
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("CXX", named)
    monkeypatch.setattr(speed.shutil, "which", asked.append)
    assert what_compiling_lacks(CPU) == f"there is no C++ compiler ({' or '.join(tried)})"
    assert asked == tried
    monkeypatch.setattr(speed.shutil, "which", lambda name: name)
    assert what_compiling_lacks(CPU) == ""


@pytest.mark.parametrize(("there", "told"), [(True, ""), (False, "Triton does not work here")])
def test_a_gpu_needs_triton(monkeypatch, there, told):
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: there)
    assert what_compiling_lacks(torch.device("cuda")) == told


@pytest.mark.slow
def test_a_compiled_model_gives_the_same_logits():
    if what_compiling_lacks(CPU):
        pytest.skip("no compiler")
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()).eval()
    expected = model(IMAGES)
    compile_in_place(model, CPU)
    assert torch.allclose(model(IMAGES), expected, atol=1e-5)


@pytest.mark.gpu
def test_channels_last_and_recomputation_work_in_sixteen_bits_on_a_gpu():
    model = UNet(4, widths=(8, 16)).cuda().to(memory_format=torch.channels_last)
    recompute_blocks(model)
    with torch.autocast("cuda", torch.float16):
        logits = model(IMAGES.cuda().to(memory_format=torch.channels_last))
    logits.float().mean().backward()
    assert logits.dtype == torch.float16
    assert all(weight.grad.isfinite().all() for weight in model.parameters())
