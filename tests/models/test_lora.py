"""Low-rank adapters against products written out, autograd and the library peft."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from segedu.errors import InputError
from segedu.models.lora import LoRA, add_lora, load_lora, lora_state, merge_lora
from segedu.models.mobilenet import efficientnet_lite0

LAYERS = {
    "linear": lambda: nn.Linear(7, 5),
    "linear without bias": lambda: nn.Linear(6, 6, bias=False),
    "convolution": lambda: nn.Conv2d(3, 6, 3, padding=1),
    "strided convolution": lambda: nn.Conv2d(4, 5, (3, 2), stride=2, padding=(1, 0), bias=False),
    "1x1 convolution": lambda: nn.Conv2d(4, 8, 1),
}


def given_layer(name, *, learnt=True, rank=2, alpha=3.0):
    """A layer, its adapter in float64 with a B that is not zero, and an input."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    x = torch.randn(2, layer.weight.shape[1], generator=generator, dtype=torch.float64)
    if isinstance(layer, nn.Conv2d):
        x = torch.randn(2, layer.in_channels, 7, 8, generator=generator, dtype=torch.float64)
    adapter = LoRA(layer, rank, alpha, generator=generator)
    if learnt:
        with torch.no_grad():
            adapter.b.normal_(generator=generator)
    return layer, adapter, x


def small_net():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 6)
    ).eval()


def learn(model):
    """Adapters that are not zero."""
    with torch.no_grad():
        for name, matrix in model.named_parameters():
            if name.endswith(".b"):
                matrix.normal_(generator=torch.Generator().manual_seed(len(name)))
    return model


@pytest.mark.parametrize("name", LAYERS)
def test_at_the_start_the_output_is_the_layers_own_to_the_bit(name):
    layer, adapter, x = given_layer(name, learnt=False)
    assert torch.equal(adapter(x), layer(x))
    assert adapter.a.abs().min() > 0


@pytest.mark.parametrize("name", LAYERS)
def test_the_output_is_the_layers_plus_a_narrow_path_beside_it(name):
    layer, adapter, x = given_layer(name)
    if isinstance(layer, nn.Conv2d):
        narrow = F.conv2d(
            x,
            adapter.a.view(2, *layer.weight.shape[1:]),
            stride=layer.stride,
            padding=layer.padding,
        )
        beside = F.conv2d(narrow, adapter.b[:, :, None, None])
    else:
        beside = x @ adapter.a.T @ adapter.b.T
    torch.testing.assert_close(adapter(x), layer(x) + 3.0 / 2 * beside)


def test_by_hand_one_rank_and_two_by_two():
    layer = nn.Linear(2, 2, bias=False)
    adapter = LoRA(layer, 1, 1.0)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(2))
        adapter.a.copy_(torch.tensor([[1.0, 2.0]]))
        adapter.b.copy_(torch.tensor([[3.0], [0.0]]))
    assert adapter(torch.ones(1, 2)).tolist() == [[10.0, 1.0]]
    assert adapter.change.tolist() == [[3.0, 6.0], [0.0, 0.0]]


@pytest.mark.parametrize("name", ["linear", "strided convolution"])
def test_the_gradients_of_a_and_b_are_those_of_the_formula(name):
    layer, adapter, x = given_layer(name)
    weight = (layer.weight + adapter.change).detach().requires_grad_()
    y = torch.func.functional_call(layer, {"weight": weight}, (x,))
    [g] = torch.autograd.grad(y.sin().sum(), weight)
    adapter(x).sin().sum().backward()
    torch.testing.assert_close(adapter.b.grad, 1.5 * g.flatten(1) @ adapter.a.T)
    torch.testing.assert_close(adapter.a.grad, 1.5 * adapter.b.T @ g.flatten(1))
    assert layer.weight.grad is None


@pytest.mark.parametrize("name", LAYERS)
def test_gradcheck_in_a_b_and_the_input(name):
    _, adapter, x = given_layer(name)

    def output(x, a, b):
        return torch.func.functional_call(adapter, {"a": a, "b": b}, (x,))

    inputs = [value.detach().clone().requires_grad_() for value in (x, adapter.a, adapter.b)]
    assert torch.autograd.gradcheck(output, inputs, fast_mode=True)


@pytest.mark.parametrize("name", LAYERS)
def test_merged_it_gives_the_same_output_and_unmerged_the_layer_is_as_it_was(name):
    layer, adapter, x = given_layer(name)
    before, plain = adapter(x), layer(x)
    weight = layer.weight.clone()
    for _ in range(2):  # a second time changes nothing
        adapter.merge()
        torch.testing.assert_close(layer(x), before)
        torch.testing.assert_close(adapter(x), before)
    for _ in range(2):
        adapter.unmerge()
        torch.testing.assert_close(layer.weight, weight)
        torch.testing.assert_close(adapter(x), before)
    torch.testing.assert_close(layer(x), plain)


@given(rank=st.integers(1, 4), rows=st.integers(4, 9), columns=st.integers(4, 9))
def test_the_change_has_the_rank_asked_for_and_so_many_numbers(rank, rows, columns):
    adapter = LoRA(nn.Linear(columns, rows).double(), rank, 1.0)
    with torch.no_grad():
        adapter.b.normal_(generator=torch.Generator().manual_seed(rank))
    assert torch.linalg.matrix_rank(adapter.change) == rank
    learnt = sum(p.numel() for p in adapter.parameters() if p.requires_grad)
    assert learnt == rank * (rows + columns)


def test_a_is_as_large_as_the_square_root_of_its_length_asks_and_follows_the_generator():
    a, b = (
        LoRA(nn.Conv2d(50, 40, 3), 8, 1.0, generator=torch.Generator().manual_seed(s)).a
        for s in (0, 0)
    )
    assert torch.equal(a, b)
    assert a.std().item() == pytest.approx(450**-0.5, rel=0.1)


@pytest.mark.parametrize(
    ("layer", "rank", "told"),
    [
        (nn.Linear(4, 6), 0, "rank is 0; expected 1 to 4"),
        (nn.Linear(4, 6), 5, "rank is 5; expected 1 to 4"),
        (nn.Conv2d(1, 20, 3), 10, "rank is 10; expected 1 to 9 for the layer, whose weight is 20"),
        (nn.Conv2d(4, 4, 3, groups=4), 1, "has 4 groups"),
    ],
)
def test_a_layer_that_does_not_fit_is_refused(layer, rank, told):
    with pytest.raises(InputError, match=told):
        LoRA(layer, rank, 1.0)


def test_layers_are_replaced_in_place_and_nothing_else_learns():
    net = small_net()
    x = torch.randn(2, 3, 4, 4)
    before = net(x)
    assert add_lora(net, 2, 4.0) == ["0", "4"]
    torch.testing.assert_close(net(x), before)
    learning = {name for name, p in net.named_parameters() if p.requires_grad}
    assert learning == {"0.a", "0.b", "4.a", "4.b"}
    assert net[0].scale == 2.0


def test_where_chooses_layers_by_a_part_of_their_names():
    net = nn.ModuleDict({"body": small_net(), "head": nn.Linear(6, 6)})
    assert add_lora(net, 1, 1.0, where=r"^body\.4|head") == ["body.4", "head"]
    assert isinstance(net["body"][0], nn.Conv2d)


@pytest.mark.parametrize(
    ("where", "rank", "told"),
    [
        ("decoder", 2, "where='decoder' finds no linear layer and no convolution, such as 0, 4"),
        ("4", 7, "rank is 7; expected 1 to 6 for 4"),
        ("", 9, "rank is 9; expected 1 to 8 for 0"),
    ],
)
def test_a_model_that_is_refused_stays_as_it_was(where, rank, told):
    net = small_net()
    with pytest.raises(InputError, match=told):
        add_lora(net, rank, 1.0, where=where)
    assert all(p.requires_grad for p in net.parameters())
    assert not any(isinstance(module, LoRA) for module in net.modules())


def test_a_model_without_layers_or_with_adapters_already_is_refused():
    with pytest.raises(InputError, match="but the model has none"):
        add_lora(nn.Sequential(nn.ReLU()), 1, 1.0)
    net = small_net()
    add_lora(net, 1, 1.0)
    with pytest.raises(InputError, match="has adapters already; `merge_lora` them first"):
        add_lora(net, 1, 1.0)


def test_a_layer_with_two_names_stays_one_layer():
    shared = nn.Linear(4, 4)
    net = nn.Sequential(shared, nn.ReLU(), shared)
    assert add_lora(net, 2, 2.0) == ["0", "2"]
    assert net[0] is net[2]
    learn(net)
    x = torch.randn(3, 4)
    before = net(x)
    merge_lora(net)
    assert net[0] is net[2] is shared
    torch.testing.assert_close(net(x), before)


def test_after_merging_the_model_is_of_plain_layers_and_answers_the_same():
    net = small_net()
    names = set(net.state_dict())
    add_lora(net, 2, 4.0)
    learn(net)
    x = torch.randn(2, 3, 4, 4)
    before = net(x)
    merge_lora(net)
    assert set(net.state_dict()) == names
    torch.testing.assert_close(net(x), before)


def test_the_adapters_alone_carry_what_was_learnt(tmp_path):
    net, other = small_net(), small_net()
    for model in (net, other):
        add_lora(model, 2, 4.0)
    learn(net)
    state = lora_state(net)
    assert list(state) == ["0.a", "0.b", "4.a", "4.b"]
    assert not any(matrix.requires_grad for matrix in state.values())
    torch.save(state, tmp_path / "adapters.pt")
    load_lora(other, torch.load(tmp_path / "adapters.pt", weights_only=True))
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(other(x), net(x))
    assert set(lora_state(net[0])) == {"a", "b"}


def test_adapters_of_another_form_are_refused_and_leave_the_model_as_it_was():
    net = small_net()
    add_lora(net, 2, 4.0)
    before = {name: matrix.clone() for name, matrix in lora_state(net).items()}
    good = {name: matrix + 1 for name, matrix in before.items()}
    for state, told in (
        ({k: v for k, v in good.items() if k != "4.b"}, "4.b is missing; expected the 4 matrices"),
        (good | {"5.a": good["0.a"]}, "5.a has no place in the model"),
        (good | {"4.b": torch.ones(6, 3)}, r"4.b has the shape \(6, 3\); expected \(6, 2\)"),
    ):
        with pytest.raises(InputError, match=told):
            load_lora(net, state)
        assert all(torch.equal(before[k], v) for k, v in lora_state(net).items())
    net[4].merge()
    with pytest.raises(InputError, match="are merged; `unmerge` them first"):
        load_lora(net, good)


def test_the_pointwise_convolutions_of_lite0_take_adapters_and_its_depthwise_ones_do_not():
    net = efficientnet_lite0()
    with pytest.raises(InputError, match="groups: its weight is 32 small matrices"):
        add_lora(net, 4, 4.0, where=r"conv_(pw|dw)")
    names = add_lora(net, 4, 4.0, where=r"conv_pw")
    assert len(names) == 1 + 2 * 15
    stem = efficientnet_lite0()
    x = torch.rand(1, 3, 33, 35)
    before = stem.eval()(x)[2]
    add_lora(stem, 4, 4.0, where="conv_stem")  # a convolution that pads in its own way
    torch.testing.assert_close(stem(x)[2], before)


@pytest.fixture(scope="module")
def peft():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        return pytest.importorskip("peft")


@pytest.mark.parametrize("name", LAYERS)
def test_with_the_same_matrices_it_is_pefts_adapter(name, peft):
    layer, adapter, x = given_layer(name)
    twin = nn.ModuleDict({"layer": LAYERS[name]().double()})
    twin["layer"].load_state_dict(layer.state_dict())
    config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=["layer"])
    theirs = peft.inject_adapter_in_model(config, twin)["layer"].double()
    a, b = (side["default"].weight for side in (theirs.lora_A, theirs.lora_B))
    with torch.no_grad():
        a.copy_(adapter.a.view_as(a))
        b.copy_(adapter.b.view_as(b))
    torch.testing.assert_close(adapter(x), theirs(x))
    for output in (adapter(x), theirs(x)):
        output.sin().sum().backward()
    torch.testing.assert_close(adapter.a.grad, a.grad.view_as(adapter.a))
    torch.testing.assert_close(adapter.b.grad, b.grad.view_as(adapter.b))
    adapter.merge()
    theirs.merge()
    torch.testing.assert_close(layer.weight, theirs.get_base_layer().weight)
