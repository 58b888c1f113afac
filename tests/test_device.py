import pytest
import torch

from segedu.device import is_quick_in_16_bits, mixed_precision, pick_device
from segedu.errors import InputError


@pytest.mark.parametrize(
    ("cuda", "mps", "best"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_is_the_fastest_device_there_is(monkeypatch, cuda, mps, best):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device("auto").type == best


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="this machine has none"):
        pick_device("cuda")
    with pytest.raises(InputError, match="not a device"):
        pick_device("quantum")


@pytest.mark.parametrize(
    ("has_bfloat16", "dtype"), [(True, torch.bfloat16), (False, torch.float16)]
)
def test_a_gpu_without_bfloat16_computes_in_float16(monkeypatch, has_bfloat16, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_options: has_bfloat16)
    assert mixed_precision(torch.device("cuda")) == dtype
    assert mixed_precision(torch.device("cpu")) == torch.bfloat16


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_a_cpu_computes_in_16_bits_only_if_it_has_them(monkeypatch, has_bfloat16):
    for feature in ("avx512_bf16", "amx_tile", "arm_bf16"):
        name = f"_is_{feature}_supported"
        monkeypatch.setattr(torch.cpu, name, lambda: has_bfloat16, raising=False)
    assert is_quick_in_16_bits(torch.device("cpu")) == has_bfloat16
    assert is_quick_in_16_bits(torch.device("cuda"))
