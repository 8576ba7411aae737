"""A trainer has PyTorch's compiler when its task compiles, and not before."""

import subprocess
import sys

SCRIPT = """
import sys
from ml.training.compiler_on_demand import leave_compiler_until_asked
leave_compiler_until_asked()
leave_compiler_until_asked()
import torch

model = torch.nn.Linear(2, 2)
optimizers = [torch.optim.SGD(model.parameters(), lr=.1), torch.optim.AdamW(model.parameters())]

def step(model):
    for optimizer in optimizers:
        optimizer.zero_grad()
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())

step(model)
assert "torch._dynamo.eval_frame" not in sys.modules, "loaded for a step"

@torch.compiler.disable
def plain(x):
    assert not torch.compiler.is_compiling()
    return x + 1

from torch._dynamo.utils import counters
import torch._dynamo.testing
backend = torch._dynamo.testing.CompileCounter()
assert torch._dynamo.utils.counters is counters
assert torch._dynamo.utils.__spec__.loader is torch._dynamo.utils.__loader__

@torch.compile(backend=backend)
def compiled(x):
    return plain(torch.sin(x)) + 1

assert torch.equal(compiled(torch.ones(2)), torch.sin(torch.ones(2)) + 2)
assert backend.frame_count == 2, "what is disabled was compiled, or nothing was"
step(torch.compile(model, backend=backend))
assert backend.frame_count == 3
function = torch.optim.Optimizer.zero_grad.__wrapped__
assert function.__dynamo_disable is not function, "the compiler would look into an optimizer"
"""


def test_compiler_is_loaded_by_who_compiles_and_then_is_as_ever() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
