"""What the digests of a training depend on, beside p2pd itself."""

import json
import subprocess
from pathlib import Path

_ASK = """
import json, platform, numpy, torch
print(json.dumps({
    "machine": platform.machine(),
    "numpy": numpy.__version__,
    "torch": torch.__version__,
    "vector instructions": torch.backends.cpu.get_cpu_capability(),
}))
"""


def facts_of(python: Path) -> dict[str, str]:
    """Versions and the processor's abilities, as the peers' interpreter sees them."""
    asked = subprocess.run([python, "-c", _ASK], capture_output=True, text=True, check=True)
    return {**json.loads(asked.stdout), "processor": _processor()}


def _processor() -> str:
    """Which one it is: libraries choose their kernels by more than the vector instructions."""
    names = ("vendor_id", "cpu family", "model")
    lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    found = {name.strip(): value.strip() for name, _, value in lines}
    return " ".join(found.get(name, "unknown") for name in names)
