"""Where to compute: the fastest device there is, and the number format it is good at."""

import torch

from segedu.errors import InputError


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" is a CUDA GPU if there is one, else Apple's, else the CPU.

    Raises:
        InputError: If this machine has no such device.
    """
    if name == "auto":
        return torch.device(_fastest())
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name!r}: not a device; use auto, cuda, mps or cpu") from error
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(device.type, False):
        raise InputError(f"device {name!r}: this machine has none; use auto or cpu")
    return device


def mixed_precision(device: torch.device) -> torch.dtype:
    """The 16-bit format that autocast should use: bfloat16, or float16 on a GPU without it.

    float16 needs its loss scaled (`torch.amp.GradScaler`), since small gradients vanish in it.
    """
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def is_quick_in_16_bits(device: torch.device) -> bool:
    """Whether 16-bit arithmetic saves time here: on a GPU, or a CPU that has bfloat16 in hardware.

    A CPU without it must imitate it, and takes several times as long as in float32.
    """
    if device.type != "cpu":
        return True
    return any(
        getattr(torch.cpu, f"_is_{feature}_supported", lambda: False)()
        for feature in ("avx512_bf16", "amx_tile", "arm_bf16")
    )


def _fastest() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
