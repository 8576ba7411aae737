"""An export with all that did not travel, and in the form that transformers and peft load."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ml.state.provenance import frozen_digest
from ml.training.weights import check_base, start_from
from ml.whole_model import whole_model, write_pretrained, write_whole
from p2pd.what_travels import describe_still, is_trained, tensors_of
from protocol.errors import ConfigError

# Peft and transformers take many seconds to load: only who needs them does so.
if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

# peft asks a model of transformers for a property that its next version names otherwise.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


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
