"""What training changes travels; what it leaves alone is compared once, by its digest."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch

from daemon.swarm.same_task import check_opened, frozen_prefixes
from ml.averaging.messages import Neighbour
from ml.check_task import check_task
from ml.opening import TaskOpened
from ml.task.load import load_task
from protocol.errors import ConfigError, NoDataError
from protocol.statements.swarm import RoundSettings, SwarmStatement, TaskReference
from tests.ml.conftest import TINY_TASK, MakeOpening
from tests.ml.running import apply, model_of, open_learner, run_rounds, train

SOURCE = TINY_TASK.read_text()
ADAPTED = """
class Adapted(nn.Module):
    '''A large layer that stays, and a small one beside it that is trained.'''

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(8, 4000)
        self.head = nn.Linear(4000, 3)
        self.requires_grad_(False)
        self.down = nn.Linear(8, 2, bias=False)
        self.up = nn.Linear(2, 3, bias=False)
        self.register_buffer("mask", torch.full((4, 4), float("-inf")).triu(1))
        self.register_buffer("table", torch.ones(1, 1).expand(4, 4))
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.calls = 0

    def forward(self, inputs):
        if self.training:
            self.calls += 1
            self.steps += 1
            self.seen += inputs.mean(0)[:3]
        LATER
        return self.head(self.base(inputs)) + self.up(self.down(inputs))


def model():
    return Adapted()


def unused():
"""
TRAINED_BYTES = 4 * (8 * 2 + 2 * 3 + 3) + 8
FROZEN_BYTES = 4 * (8 * 4000 + 4000 + 4000 * 3 + 3)


def adapted(directory: Path, later: str = "pass", more: str = "") -> str:
    path = directory / "adapted.py"
    path.write_text(SOURCE.replace("def model():\n", ADAPTED.replace("LATER", later)) + more)
    return str(path)


def of_inputs(directory: Path, model: str) -> str:
    path = directory / "task.py"
    path.write_text(SOURCE.replace("return nn.Sequential(", f"return {model}(", 1))
    return str(path)


def test_nothing_of_what_is_frozen_is_in_update_state_or_export(
    tmp_path: Path, make_opening: MakeOpening
) -> None:
    task = adapted(tmp_path)
    learners = [
        open_learner(make_opening(name, task=task, shard=(i, 2))) for i, name in enumerate("ab")
    ]
    opened = learners[0].opened
    assert [one.name for one in opened.frozen] == [
        "base.bias", "base.weight", "head.bias", "head.weight", "mask", "table",
    ]  # fmt: skip
    states = run_rounds(learners, 2)
    assert states[0].state.root == states[1].state.root
    trained = train(learners[0], 3)
    header_bytes = 1000
    assert trained.updates[0].size_bytes < TRAINED_BYTES + header_bytes
    assert states[0].state.size_bytes < TRAINED_BYTES + header_bytes
    checkpoints = list((tmp_path / "a" / "checkpoints").iterdir())
    assert sum(one.stat().st_size for one in checkpoints) < len(checkpoints) * FROZEN_BYTES / 100
    exported = learners[0].export(tmp_path / "model.safetensors")
    assert exported.size_bytes < TRAINED_BYTES + header_bytes
    for learner in learners:
        learner.close()


def test_constants_of_any_size_are_no_trouble_in_gossip(
    tmp_path: Path, make_opening: MakeOpening
) -> None:
    more = """

class Constants(Adapted):
    def __init__(self):
        super().__init__()
        self.register_buffer("least", torch.full((4,), torch.finfo(torch.float32).min))
        self.register_buffer("large", torch.full((4,), 1e13))

def model():
    return Constants()
"""
    task = adapted(tmp_path, more=more)
    learner = open_learner(make_opening(task=task, exchange="gossip"))
    own = train(learner, 1).updates[0].path
    state = learner.mix(1, own, (Neighbour("peer", own, 0.5),))
    assert state.round == 1
    assert not {"least", "large", "mask"} & {str(name) for name, *_ in learner.model.tensors}


def test_buffer_that_steps_change_is_averaged(tmp_path: Path, make_opening: MakeOpening) -> None:
    learner = open_learner(make_opening(task=adapted(tmp_path)))
    assert not model_of(learner).get_buffer("seen").any()  # the tried steps are undone
    apply(learner, 1, [train(learner, 1)])
    assert model_of(learner).get_buffer("seen").any()
    assert model_of(learner).get_buffer("steps") == 30
    learner.close()


def test_update_is_hardly_larger_than_the_adapter_encoded(
    tmp_path: Path, make_opening: MakeOpening
) -> None:
    """99 % frozen: of a round travels the adapter and a header."""
    source = f"""{SOURCE}

class Low(nn.Module):
    def __init__(self):
        super().__init__()
        self.base = nn.Linear(8, 400_000).requires_grad_(False)
        self.adapter = nn.Linear(8, 4000)

    def forward(self, inputs):
        return self.adapter(inputs)[:, :3] + self.base(inputs)[:, :3]

def model():
    return Low()
"""
    path = tmp_path / "low.py"
    path.write_text(source)
    learner = open_learner(make_opening(task=str(path), compression="int8"))
    state = apply(learner, 1, [train(learner, 1)])
    adapter = learner.opened.parameter_count
    assert adapter == 36_000
    assert train(learner, 2).updates[0].size_bytes <= 1.1 * adapter
    assert state.state.size_bytes <= 1.1 * 4 * adapter
    learner.close()


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        ("self.table = torch.ones(2, 4)", "table is torch.float32 [2, 4] after the first step"),
        ("self.added = nn.Linear(2, 2)", "added.bias is there only after the first step"),
        ("self.seen[0] = float('inf')", "training changes seen, which has infinity"),
        ("self.base.weight.data.mul_(2)", "base.weight is a parameter that requires no gradient"),
        ("self.head.requires_grad_()", "head.bias requires a gradient after the first step"),
    ],
)
def test_what_cannot_be_averaged_is_refused_by_name_before_any_round(
    tmp_path: Path, make_opening: MakeOpening, later: str, expected: str
) -> None:
    task = adapted(tmp_path, later)
    with pytest.raises(ConfigError) as caught:
        check_task(load_task(task, builtin=False), tmp_path)
    assert str(caught.value).startswith(f"model(): {expected}")
    with pytest.raises(ConfigError) as caught:
        open_learner(make_opening(task=task))
    assert str(caught.value).startswith(f"model(): {expected}")


def test_parameter_in_one_place_of_memory_is_refused_by_name(
    tmp_path: Path, make_opening: MakeOpening
) -> None:
    more = """

class Shared(Adapted):
    def __init__(self):
        super().__init__()
        self.wide = nn.Parameter(torch.ones(1).expand(3))


def model():
    return Shared()
"""
    with pytest.raises(ConfigError, match=r"wide has several elements in one place .*\.clone"):
        open_learner(make_opening(task=adapted(tmp_path, more=more)))


def test_buffer_that_changes_later_is_told_with_what_to_write(
    tmp_path: Path, make_opening: MakeOpening
) -> None:
    later = "self.table = torch.full((4, 4), 1.0 + (self.calls > 10))"
    learner = open_learner(make_opening(task=adapted(tmp_path, later)))
    with pytest.raises(ConfigError, match=r"the buffer table in round 1.*MOVING = \['table'\]"):
        train(learner, 1)
    learner.close()
    learner = open_learner(
        make_opening("other", task=adapted(tmp_path, later, "\nMOVING = ['table']\n"))
    )
    apply(learner, 1, [train(learner, 1)])
    assert model_of(learner).get_buffer("table").eq(2).all()
    learner.close()


def test_peer_with_another_base_is_told_which_tensor(
    tmp_path: Path, make_opening: MakeOpening
) -> None:
    task = adapted(tmp_path)
    founder = open_learner(make_opening(task=task))
    other = open_learner(
        make_opening(
            "other",
            task=adapted(tmp_path, more="\n_made = model\ndef model():\n    made = _made()\n"
            "    made.head.weight.data[0, 0] += 1\n    return made\n"),
        )
    )  # fmt: skip
    statement = statement_of(founder.opened)
    check_opened(statement, founder.opened)
    with pytest.raises(ConfigError, match=r"head\.weight, which stays as it is .*very file"):
        check_opened(statement, other.opened)
    founder.close()
    other.close()


def test_digest_of_a_model_without_frozen_tensors_is_what_it_was(make_opening: MakeOpening) -> None:
    """It stands in the statements of swarms that run."""
    learner = open_learner(make_opening())
    assert learner.opened.frozen == ()
    learner.close()


def test_half_precision_stays_in_memory_and_states_are_float32(
    tmp_path: Path, make_opening: MakeOpening
) -> None:
    source = (
        SOURCE.replace("nn.Linear(16, 3))", "nn.Linear(16, 3)).to(torch.bfloat16)")
        .replace("centers[labels] +", "(centers[labels] +")
        .replace("generator=generator), labels)", "generator=generator)).bfloat16(), labels)")
    )
    path = tmp_path / "half.py"
    path.write_text(source)
    learner = open_learner(make_opening(task=str(path)))
    state = apply(learner, 1, [train(learner, 1)])
    assert model_of(learner)[0].weight.dtype is torch.bfloat16  # type: ignore[index]
    assert state.state.size_bytes > 4 * learner.opened.parameter_count
    learner.close()


def statement_of(opened: TaskOpened) -> SwarmStatement:
    return SwarmStatement(
        name="swarm",
        nonce=b"",
        version=1,
        task=TaskReference(
            name="adapted.py",
            builtin=False,
            file_sha256=b"",
            manifest_digest=opened.manifest_digest,
            seed=7,
            initial_state_digest=opened.initial_root,
            frozen=frozen_prefixes(opened.frozen),
        ),
        settings=RoundSettings(),
        rendezvous=(),
        open=True,
        tokens=(),
        members=(),
        banned=(),
    )


def test_founder_without_data_has_the_model_that_peers_with_data_have(
    tmp_path: Path, make_opening: MakeOpening
) -> None:
    absent = "\ndef train_dataset(data_dir):\n    raise FileNotFoundError(data_dir)\n"
    table = ADAPTED.replace("LATER", "pass").replace(
        "self.calls = 0", 'self.calls = 0\n        self.register_buffer("fixed", torch.ones(5))'
    )
    path = tmp_path / "adapted.py"
    path.write_text(SOURCE.replace("def model():\n", table) + absent)
    opening = make_opening("founder", task=str(path))
    with pytest.raises(NoDataError, match=r"train_dataset\(\) failed"):
        open_learner(opening)
    founder = open_learner(replace(opening, without_data=True))
    path.write_text(SOURCE.replace("def model():\n", table))
    tried = open_learner(make_opening("tried", task=str(path)))
    untried = make_opening("untried", task=str(path))
    peer = open_learner(
        replace(untried, choice=msgspec.structs.replace(untried.choice, tried=False))
    )
    assert founder.opened.manifest_digest == peer.opened.manifest_digest
    assert founder.opened.initial_root == peer.opened.initial_root
    # What nobody has seen to stay as it is travels.
    assert tried.opened.manifest_digest != peer.opened.manifest_digest
    names = {str(name) for name, *_ in peer.model.tensors}
    assert names - {str(name) for name, *_ in tried.model.tensors} == {"fixed"}
    state = apply(peer, 1, [train(peer, 1)])
    assert state.round == 1
    for learner in (founder, peer, tried):
        learner.close()
