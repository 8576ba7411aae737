"""On which device a model trains: the one that was asked for, if it can be used.

A device that torch sees may still be of no use: a driver that is older than torch, a card that
another process has filled, an architecture that torch was not built for. So each is tried by a
small training step, and one that fails is told of and left for the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

AUTO = "auto"
CPU = "cpu"
REASON_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Chosen:
    """What it came to."""

    device: torch.device
    problem: str = ""
    """Why it is not another one that was asked for, or seen; empty: it is the first choice."""

    @property
    def name(self) -> str:
        """For people."""
        if self.device.type == "cuda":
            return f"{self.device} ({torch.cuda.get_device_name(self.device)})"
        return str(self.device)


def choose_device(wish: str, seen: Sequence[str] | None = None) -> Chosen:
    """The first of what ``wish`` means that can be used; the CPU always can.

    ``wish``: ``auto``, or a device of torch's such as ``cuda:1``. ``seen``: the devices that
    ``auto`` means (default: those that torch sees).

    >>> choose_device("cpu")
    Chosen(device=device(type='cpu'), problem='')
    """
    wished = [wish] if wish != AUTO else list(seen_devices() if seen is None else seen)
    problems: list[str] = []
    for name in wished:
        problem = "" if name == CPU else problem_of(name)
        if not problem:
            return Chosen(torch.device(name), "; ".join(problems))
        problems.append(problem)
    return Chosen(torch.device(CPU), "; ".join(problems))


def seen_devices() -> list[str]:
    """The accelerators that torch says are there, the usual choice first."""
    kinds = (("cuda", torch.cuda), ("xpu", torch.xpu), ("mps", torch.backends.mps))
    return [name for name, kind in kinds if kind.is_available()]


def problem_of(name: str) -> str:
    """Why a small training step on a device fails; empty: it works."""
    try:
        device = torch.device(name)
        weights = torch.ones(8, 8, device=device, requires_grad=True)
        (weights @ torch.ones(8, 8, device=device)).sum().backward()  # type: ignore[no-untyped-call]  # torch's
        gradient = weights.grad
        if gradient is None or gradient.sum().item() != 512.0:
            return f"{name} cannot be used: it computes wrong numbers"
    except Exception as error:  # torch raises AssertionError, RuntimeError and more of its own
        return f"{name} cannot be used: {reason_in(error)}"
    return ""


def reason_in(error: Exception) -> str:
    """The first sentence of what torch says."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(". ")[0][:REASON_CHARACTERS].rstrip(".")
