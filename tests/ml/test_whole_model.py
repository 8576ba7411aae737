"""An export with all that did not travel, and in the form that transformers and peft load."""

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ml.state.provenance import frozen_digest
from ml.task.load import load_task
from ml.training.weights import check_base, start_from
from ml.whole_model import main, whole_model, write_pretrained, write_whole
from p2pd.messages import Opened, encode
from p2pd.what_travels import describe, describe_still, is_trained, still_by_kind, tensors_of
from protocol.errors import ConfigError

# Peft and transformers take many seconds to load: only who needs them does so.
if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

# peft asks a model of transformers for a property that its next version names otherwise.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


ROOT = Path(__file__).parents[2]
ADAPTERS_TASK = ROOT / "benchmarks" / "learning" / "adapters_task.py"


def llama() -> "LlamaForCausalLM":
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 8}
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads, tie_word_embeddings=True))


def adapted() -> nn.Module:
    from peft import LoraConfig, get_peft_model

    model: nn.Module = get_peft_model(llama(), LoraConfig(r=2, task_type="CAUSAL_LM"))
    return model


def trained_in(model: nn.Module) -> dict[str, torch.Tensor]:
    """What an export holds, with other numbers than ``model`` has."""
    own = tensors_of(model)
    return {name: one.detach() + 1 for name, one in own.items() if is_trained(one)}


def frozen_in(model: nn.Module) -> dict[str, str]:
    still = {name for name, one in tensors_of(model).items() if not is_trained(one)}
    return {name: sha256 for name, _, _, sha256 in describe_still(model, still)}


def answers(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(torch.arange(8)[None]).logits
    return logits


def test_model_of_transformers_is_loaded_by_from_pretrained(tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    exported = trained_in(llama())
    exported["lm_head.weight"] = exported.setdefault(
        "model.embed_tokens.weight", exported.get("lm_head.weight", torch.zeros(0))
    )
    save_file({name: one.clone() for name, one in exported.items()}, tmp_path / "export")
    model = whole_model(llama(), tmp_path / "export", {})
    write_pretrained(model, tmp_path / "pretrained")
    again = LlamaForCausalLM.from_pretrained(tmp_path / "pretrained")
    assert torch.equal(answers(again), answers(model))
    assert not torch.equal(answers(again), answers(llama()))


def test_adapter_of_peft_is_loaded_on_its_base(tmp_path: Path) -> None:
    from peft import PeftModel

    save_file(trained_in(adapted()), tmp_path / "export")
    model = whole_model(adapted(), tmp_path / "export", frozen_in(adapted()))
    write_pretrained(model, tmp_path / "adapter")
    written = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all("lora" in name for name in written)
    again = PeftModel.from_pretrained(llama(), tmp_path / "adapter")
    assert torch.equal(answers(again), answers(model))
    assert not torch.equal(answers(again), answers(adapted()))


@pytest.fixture(scope="module")
def lora_example() -> Any:
    path = ROOT / "examples" / "scripts" / "lora_llama.py"
    spec = importlib.util.spec_from_file_location("lora_llama", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def added(model: nn.Module) -> list[torch.Tensor]:
    """What the adapters add to each layer."""
    from peft.tuners.lora import LoraLayer

    layers = [one for one in model.modules() if isinstance(one, LoraLayer)]
    return [layer.get_delta_weight("default").detach() for layer in layers]


@pytest.mark.parametrize("freeze_a", [False, True])
def test_average_of_adapters_is_exact_where_one_factor_is_frozen(
    lora_example: Any, freeze_a: bool
) -> None:
    """The mean of several B times the mean of several A is not the mean of their products."""
    one, two, mean = (lora_example.adapted(freeze_a=freeze_a) for _ in range(3))
    tensors = [tensors_of(model) for model in (one, two, mean)]
    trained = [name for name, tensor in tensors[0].items() if is_trained(tensor)]
    assert trained
    assert any(".lora_A." in name for name in trained) == (not freeze_a)
    with torch.no_grad():
        for name in trained:
            tensors[0][name].normal_()
            tensors[1][name].normal_()
            tensors[2][name].copy_((tensors[0][name] + tensors[1][name]) / 2)
    pairs = zip(added(one), added(two), added(mean), strict=True)
    exact = [torch.allclose((a + b) / 2, c, atol=1e-4) for a, b, c in pairs]
    assert exact == [freeze_a] * len(exact)
    assert exact


def small() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(2, 3).requires_grad_(False), nn.Linear(3, 1))


def test_whole_export_has_what_state_dict_has(tmp_path: Path) -> None:
    save_file(trained_in(small()), tmp_path / "export")
    model = whole_model(small(), tmp_path / "export", frozen_in(small()))
    write_whole(model, {"round": "3"}, tmp_path / "whole")
    small().load_state_dict(load_file(tmp_path / "whole"), strict=True)
    assert torch.equal(load_file(tmp_path / "whole")["1.bias"], small().state_dict()["1.bias"] + 1)
    with pytest.raises(ConfigError, match="no save_pretrained"):
        write_pretrained(model, tmp_path / "x")
    with pytest.raises(ConfigError, match=r"another 0\.bias"):
        whole_model(small(), tmp_path / "export", frozen_in(small()) | {"0.bias": "00"})
    with pytest.raises(ConfigError, match="another model"):
        whole_model(nn.Linear(2, 3), tmp_path / "export", {})


def test_swarm_begins_with_weights_of_a_file(tmp_path: Path) -> None:
    save_file(trained_in(small()), tmp_path / "export")
    model = small()
    start_from(model, tmp_path / "export")
    assert torch.equal(model.state_dict()["1.bias"], small().state_dict()["1.bias"] + 1)
    assert torch.equal(model.state_dict()["0.bias"], small().state_dict()["0.bias"])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"1.bias": None}, r"has no 1\.bias, which this model trains"),
        ({"1.bias": torch.zeros(4)}, r"1\.bias as \[4\], and model\(\) makes it as \[1\]"),
        ({"0.bias": torch.zeros(3)}, r"another 0\.bias than model\(\) makes"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, change: dict[str, torch.Tensor | None], expected: str
) -> None:
    tensors = {**trained_in(small()), **change}
    save_file({name: one for name, one in tensors.items() if one is not None}, tmp_path / "file")
    with pytest.raises(ConfigError, match=expected):
        start_from(small(), tmp_path / "file")


def test_weights_on_another_base_are_refused(tmp_path: Path) -> None:
    still = {"0.weight", "0.bias"}
    frozen = describe_still(small(), still)
    metadata = {"frozen": frozen_digest(frozen)}
    save_file(trained_in(small()), tmp_path / "export", metadata=metadata)
    check_base(frozen, tmp_path / "export")
    torch.manual_seed(6)
    other = nn.Sequential(nn.Linear(2, 3).requires_grad_(False), nn.Linear(3, 1))
    with pytest.raises(ConfigError, match="other frozen tensors"):
        check_base(describe_still(other, still), tmp_path / "export")
    (tmp_path / "text").write_text("no model")
    with pytest.raises(ConfigError, match="no file of safetensors"):
        check_base(frozen, tmp_path / "text")


def test_program_writes_what_peft_loads_on_the_base_of_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What ``p2pd export DIR --pretrained`` starts, with the task of a benchmark."""
    from peft import PeftModel

    task = load_task(str(ADAPTERS_TASK), builtin=False)
    model = task.make_model(4)
    still = still_by_kind(model)
    said = Opened(
        tensors=[list(one) for one in describe(model, still)],
        frozen=[list(one) for one in describe_still(model, still)],
        tied={},
        sample_count=1,
    )
    (tmp_path / "description").write_bytes(encode(said))
    save_file(trained_in(model), tmp_path / "export", metadata={"round": "7"})
    words = {
        "task": ADAPTERS_TASK,
        "sha256": task.file_sha256.hex(),
        "seed": 4,
        "description": tmp_path / "description",
        "weights": tmp_path / "export",
        "pretrained": tmp_path / "adapter",
    }
    monkeypatch.setattr("sys.argv", ["", *(f"--{name}={value}" for name, value in words.items())])
    assert main() == 0
    assert json.loads(capsys.readouterr().out)["round"] == 7
    torch.manual_seed(4)
    again = PeftModel.from_pretrained(task.module.base_model(), tmp_path / "adapter")
    expected = whole_model(model, tmp_path / "export", frozen_in(model))
    assert torch.equal(answers(again), answers(expected))
    assert not torch.equal(answers(again), answers(task.make_model(4)))
