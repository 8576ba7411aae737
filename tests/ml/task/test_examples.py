"""The examples are tasks that work as they are, offline."""

import os
from pathlib import Path

import pytest
import torch

from ml.check_task import check_task
from ml.task.load import load_task_file

EXAMPLES = Path(__file__).parents[3] / "examples"
OFFLINE = ["breast_cancer.py", "char_transformer.py"]


@pytest.mark.parametrize("name", OFFLINE)
def test_example_passes_the_check(name: str, tmp_path: Path) -> None:
    manifest = check_task(load_task_file(EXAMPLES / name), tmp_path).manifest
    assert 1_000 < manifest.parameter_count < 1_000_000


@pytest.mark.mnist
def test_resnet_passes_the_check() -> None:
    data_dir = os.environ.get("P2PD_DATA_DIR", str(EXAMPLES.parents[1] / "shared" / "data"))
    if not (Path(data_dir) / "MNIST").is_dir():
        pytest.skip("no MNIST: set P2PD_DATA_DIR")
    manifest = check_task(load_task_file(EXAMPLES / "resnet_mnist.py"), Path(data_dir)).manifest
    assert manifest.parameter_count > 11_000_000


def test_no_example_imports_p2pd() -> None:
    for path in EXAMPLES.glob("*.py"):
        text = path.read_text()
        for package in ("daemon", "ml", "protocol", "p2pd"):
            assert f"import {package}" not in text
            assert f"from {package}" not in text


def test_transformer_sees_no_character_ahead(tmp_path: Path) -> None:
    module = load_task_file(EXAMPLES / "char_transformer.py").module
    torch.manual_seed(0)
    network = module.model().eval()
    text = torch.randint(0, 128, (1, 64))
    changed = text.clone()
    changed[0, 40:] = (changed[0, 40:] + 1) % 128
    with torch.no_grad():
        before, after = network(text), network(changed)
    torch.testing.assert_close(before[0, :40], after[0, :40], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before[0, 40:], after[0, 40:])
