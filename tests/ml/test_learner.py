import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from ml.averaging.messages import Contribution
from ml.learner import Learner
from ml.task.load import load_task
from ml.update.codec import parse_encoding
from p2pd.control import TrainingAbandonedError, TrainingControl
from protocol.errors import ConfigError, NoDataError, VerificationError, WorkerError
from tests.ml.conftest import TINY_TASK, MakeOpening
from tests.ml.running import (
    apply,
    averager_of,
    model_of,
    open_learner,
    open_three,
    run_rounds,
    train,
)

COMPRESSIONS = ["none", "fp16", "int8", "topk"]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"compression": "fp16"},
        {"compression": "int8"},
        {"compression": "topk", "outer_learning_rate": 0.7, "outer_momentum": 0.6},
        {"aggregation": "median", "local_unit": "steps", "local_amount": 15},
        {"aggregation": "centered_clip", "outer_learning_rate": 0.7, "outer_momentum": 0.9},
    ],
    ids=str,
)
def test_three_peers_learn_and_hold_the_same_weights(
    make_opening: MakeOpening, settings: dict[str, Any]
) -> None:
    states = run_rounds(open_three(make_opening, **settings), 5)
    assert len({state.state.root for state in states}) == 1
    assert states[0].leading > 0.95
    contents = {Path(state.state.path).read_bytes() for state in states}
    assert len(contents) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"compression": "topk:8", "outer_momentum": 0.6, "partition": "dirichlet:0.3"},
        {"aggregation": "centered_clip", "compression": "int8", "partition": "quantity:1"},
    ],
    ids=str,
)
def test_same_seeds_and_peers_give_the_same_weights_again(
    make_opening: MakeOpening, settings: dict[str, Any]
) -> None:
    first = run_rounds(open_three(make_opening, "first", **settings), 3)
    again = run_rounds(open_three(make_opening, "again", **settings), 3)
    assert first[0].state.root == again[0].state.root
    assert first[0].loss == again[0].loss


def test_each_kind_of_work_tells_that_it_gets_on(make_opening: MakeOpening) -> None:
    told: list[str] = []
    work = "open"
    learner = Learner(make_opening(), on_work=lambda: told.append(work))
    update = train(learner, 1)
    work = "check"
    learner.check_update(1, Path(update.updates[0].path))
    work = "apply"
    state = apply(learner, 1, [update])
    work = "carry over"
    apply(learner, 2, [])
    work = "load"
    learner.load_state(1, state.state.path, state.state.root)
    assert set(told) == {"open", "check", "apply", "carry over", "load"}


def test_plain_averaging_is_what_a_plain_torch_loop_computes(make_opening: MakeOpening) -> None:
    learners = open_three(make_opening)
    updates = [train(learner, 1) for learner in learners]
    base = load_task(str(TINY_TASK), builtin=False).make_model(7).state_dict()
    models = [
        {name: tensor.clone() for name, tensor in model_of(learner).state_dict().items()}
        for learner in learners
    ]
    state = apply(learners[0], 1, updates)
    loaded = safetensors.torch.load_file(state.state.path)
    for name in base:
        stacked = torch.stack([model[name] for model in models])
        if stacked.dtype.is_floating_point:
            torch.testing.assert_close(
                loaded[f"model/{name}"], stacked.mean(0), rtol=1e-5, atol=1e-6
            )
        else:
            assert loaded[f"model/{name}"] == stacked.max()


def test_outer_momentum_is_that_of_torch_sgd_with_nesterov(make_opening: MakeOpening) -> None:
    learner = open_learner(
        make_opening(outer_learning_rate=0.7, outer_momentum=0.9, local_unit="steps")
    )
    name = "0.weight"
    task = load_task(str(TINY_TASK), builtin=False)
    parameter = torch.nn.Parameter(task.make_model(7).state_dict()[name].clone())
    reference = torch.optim.SGD([parameter], lr=0.7, momentum=0.9, nesterov=True)
    for round_number in range(1, 4):
        update = train(learner, round_number)
        gradient = safetensors.torch.load_file(update.updates[0].path)[name]
        parameter.grad = gradient
        reference.step()
        state = apply(learner, round_number, [update])
        loaded = safetensors.torch.load_file(state.state.path)
        torch.testing.assert_close(loaded[f"model/{name}"], parameter.data, rtol=1e-5, atol=1e-6)
        assert loaded[f"momentum/{name}"].any()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_no_update_is_larger_than_announced(make_opening: MakeOpening, compression: str) -> None:
    learner = open_learner(make_opening(compression=compression))
    update = train(learner, 1).updates[0]
    assert Path(update.path).stat().st_size == update.size_bytes == learner.opened.max_update_bytes
    assert apply(learner, 1, []).state.size_bytes <= learner.opened.max_state_bytes


def test_round_without_updates_carries_the_state_over(make_opening: MakeOpening) -> None:
    learner = open_learner(make_opening(outer_momentum=0.5))
    before = safetensors.torch.load_file(learner.opened.state.path)
    after = safetensors.torch.load_file(apply(learner, 1, []).state.path)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(not tensor.any() for name, tensor in after.items() if name.startswith("momentum/"))


def test_initial_root_depends_on_the_seed_and_not_on_the_settings(
    make_opening: MakeOpening,
) -> None:
    plain = open_learner(make_opening("a")).opened
    tuned = open_learner(make_opening("b", outer_momentum=0.9, compression="int8")).opened
    assert plain.initial_root == tuned.initial_root == plain.state.root
    assert plain.manifest_digest == tuned.manifest_digest


def test_restarted_peer_goes_on_from_its_checkpoint(make_opening: MakeOpening) -> None:
    learners = open_three(make_opening)
    state = run_rounds(learners, 2)[0]
    opening = make_opening("peer 0", shard=(0, 3))
    learners[0].close()
    reopened = open_learner(opening)
    assert (reopened.opened.round, reopened.opened.state.root) == (2, state.state.root)
    assert reopened.opened.initial_root != state.state.root
    learners[0] = reopened
    updates = [train(learner, 3) for learner in learners]
    assert len({apply(learner, 3, updates).state.root for learner in learners}) == 1


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_update_that_was_made_before_a_restart_is_not_made_again(
    make_opening: MakeOpening, compression: str
) -> None:
    """By time, another training would give other bits, and look like a lie."""
    settings = {"compression": compression, "local_unit": "seconds", "local_amount": 0.05}
    learner = open_learner(make_opening(**settings))
    before = train(learner, 1)
    learner.close()
    reopened = open_learner(make_opening(**settings))
    after = train(reopened, 1)
    assert after == before
    assert apply(reopened, 1, [after]).round == 1


def test_damaged_own_update_is_made_again(make_opening: MakeOpening) -> None:
    learner = open_learner(make_opening())
    before = train(learner, 1)
    path = Path(before.updates[0].path)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert train(learner, 1).updates[0] == before.updates[0]


def test_own_updates_do_not_pile_up(make_opening: MakeOpening, tmp_path: Path) -> None:
    learner = open_learner(make_opening(local_unit="steps", local_amount=1, compression="int8"))
    for round_number in range(1, 8):
        apply(learner, round_number, [train(learner, round_number)])
    names = [path.name for path in (tmp_path / "peer" / "spool").glob("*.safetensors")]
    assert sorted(name.split("-")[1] for name in names) == ["00000005", "00000006", "00000007"]
    learner.close()  # A checkpoint is synced beside the next round; then older ones go.
    assert len(list((tmp_path / "peer" / "checkpoints").iterdir())) == 3


@pytest.mark.parametrize("compression", ["fp16", "int8", "topk:4"])
def test_error_feedback_makes_up_for_what_was_not_sent(
    make_opening: MakeOpening, compression: str
) -> None:
    """What an update sent and what it left over are together, bit by bit, what there was to send:
    what the training came to, and what was left over before.
    """
    settings = {"compression": compression, "local_unit": "steps", "local_amount": 3}
    learner = open_learner(make_opening(**settings))
    spec = next(spec for spec in averager_of(learner)._manifest.tensors if spec.name == "0.weight")
    encoding = parse_encoding(compression)
    assert encoding.residual_decay is not None
    left_over = np.zeros(spec.element_count, np.float32)
    for round_number in range(1, 6):
        base = averager_of(learner)._state.read(spec, 0, spec.element_count).astype(np.float32)
        update = train(learner, round_number)
        local = model_of(learner).state_dict()[spec.name].numpy().reshape(-1)
        meant = base - local + np.float32(encoding.residual_decay) * left_over
        with averager_of(learner)._codec(round_number).open(Path(update.updates[0].path)) as file:
            sent = file.read(spec, 0, spec.element_count).astype(np.float32)
        assert np.array_equal(sent, encoding.decode(encoding.encode(meant), spec.element_count))
        left_over = meant - sent
        assert np.any(left_over)
        apply(learner, round_number, [update])


def test_left_over_of_an_update_that_was_not_committed_is_forgotten(
    make_opening: MakeOpening,
) -> None:
    def second_update(name: str, *, lose_first: bool) -> bytes:
        # A kept inner optimizer would remember the lost round too, and rightly so.
        settings = {"compression": "topk:4", "local_amount": 0.2, "inner_state": "anew"}
        learner = open_learner(make_opening(name, **settings))
        if lose_first:
            train(learner, 1)
        apply(learner, 1, [])
        return train(learner, 2).updates[0].root

    assert second_update("a", lose_first=True) == second_update("b", lose_first=False)


def test_state_of_others_is_taken_over(make_opening: MakeOpening) -> None:
    learners = open_three(make_opening, outer_momentum=0.3)
    state = run_rounds(learners[:2], 2)[0]
    late = learners[2]
    loaded = late.load_state(2, state.state.path, state.state.root)
    assert (loaded.round, loaded.state.root) == (2, state.state.root)
    assert (loaded.loss, loaded.leading) == (state.loss, state.leading)
    updates = [train(learner, 3) for learner in learners]
    assert len({apply(learner, 3, updates).state.root for learner in learners}) == 1


def test_taking_an_earlier_state_drops_the_rounds_of_the_lost_fork(
    make_opening: MakeOpening, tmp_path: Path
) -> None:
    learner = open_learner(make_opening())
    other = open_learner(make_opening("other", shard=(1, 3)))
    target = run_rounds([other], 1)[0]
    run_rounds([learner], 3)
    learner.load_state(1, target.state.path, target.state.root)
    learner.close()
    opened = open_learner(make_opening()).opened
    assert (opened.round, opened.state.root) == (1, target.state.root)


def test_bad_state_is_refused_and_the_own_one_kept(
    make_opening: MakeOpening, tmp_path: Path
) -> None:
    learner = open_learner(make_opening())
    good = run_rounds([open_learner(make_opening("other"))], 1)[0].state
    content = bytearray(Path(good.path).read_bytes())

    def refused(root: bytes = good.root, round_number: int = 1) -> str:
        path = tmp_path / "state"
        path.write_bytes(content)
        with pytest.raises(VerificationError) as caught:
            learner.load_state(round_number, str(path), root)
        return str(caught.value)

    assert "has the root" in refused(root=b"r" * 32)
    assert "{'format': 'p2pd-state-1', 'round': '2'} expected" in refused(round_number=2)
    content[-5] ^= 1
    assert "has the root" in refused()
    content[-4:] = np.float32(np.nan).tobytes()
    assert "NaN or infinity in model/3.weight" in refused()
    del content[-4:]
    assert "bytes" in refused()
    assert apply(learner, 1, [train(learner, 1)]).round == 1


def test_apply_of_another_round_or_of_nonsense_is_refused(make_opening: MakeOpening) -> None:
    learner = open_learner(make_opening())
    update = train(learner, 1)
    path = update.updates[0].path
    with pytest.raises(WorkerError, match="the state is of round 0, not 4"):
        apply(learner, 5, [update])
    with pytest.raises(WorkerError, match="the state is of round 0, not 1"):
        train(learner, 2)
    twice = (Contribution("a", path, 1), Contribution("a", path, 1))
    with pytest.raises(VerificationError, match="two contributions of one peer"):
        learner.apply(1, twice)
    with pytest.raises(VerificationError, match="of no samples"):
        learner.apply(1, (Contribution("a", path, 0),))
    assert apply(learner, 1, [update]).round == 1


def test_krum_without_enough_updates_leaves_the_state_as_it_was(
    make_opening: MakeOpening,
) -> None:
    learner = open_learner(make_opening(aggregation="krum:1", min_peers=5))
    with pytest.raises(WorkerError, match="krum:1 needs 5 updates"):
        apply(learner, 1, [train(learner, 1)])
    assert apply(learner, 1, []).round == 1


def test_training_ends_after_a_step_when_asked_to_finish(make_opening: MakeOpening) -> None:
    control = TrainingControl()
    control.finish()
    trained = train(open_learner(make_opening(local_amount=100)), 1, control)
    assert trained.steps == 1
    assert trained.sample_count == 16


def test_abandoned_training_leaves_nothing(make_opening: MakeOpening) -> None:
    learner = open_learner(make_opening())
    control = TrainingControl()
    control.abandon()
    with pytest.raises(TrainingAbandonedError):
        train(learner, 1, control)
    untouched = train(open_learner(make_opening("other")), 1)
    assert train(learner, 1).updates[0].root == untouched.updates[0].root


def test_training_by_steps_and_by_seconds(make_opening: MakeOpening) -> None:
    by_steps = train(open_learner(make_opening("a", local_unit="steps", local_amount=37)), 1)
    assert (by_steps.steps, by_steps.sample_count) == (37, 480)
    by_seconds = open_learner(make_opening("b", local_unit="seconds", local_amount=0.2))
    trained = train(by_seconds, 1)
    assert trained.seconds >= 0.2
    assert trained.steps > 1


def test_diverging_training_is_told_and_the_next_one_is_sound(
    make_opening: MakeOpening, tmp_path: Path
) -> None:
    task = tmp_path / "explodes.py"
    task.write_text(TINY_TASK.read_text().replace("lr=0.1", "lr=1e30"))
    learner = open_learner(make_opening(task=str(task)))
    with pytest.raises(WorkerError, match="training diverged: the loss is nan at step"):
        train(learner, 1)
    assert not math.isnan(apply(learner, 1, []).loss)


def test_export_is_what_torch_loads(make_opening: MakeOpening, tmp_path: Path) -> None:
    learner = open_learner(replace(make_opening(), swarm_id="the swarm"))
    trained = train(learner, 1)
    state = apply(learner, 1, [trained, trained])
    path = tmp_path / "model.safetensors"
    exported = learner.export(path)
    assert exported.size_bytes == path.stat().st_size
    model = load_task(str(TINY_TASK), builtin=False).make_model(0)
    model.load_state_dict(safetensors.torch.load_file(path), strict=True)
    state_tensors = safetensors.torch.load_file(state.state.path)
    assert torch.equal(model.state_dict()["0.weight"], state_tensors["model/0.weight"])
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata == {
        "format": "pt",
        "round": "1",
        "state": state.state.root.hex(),
        "task": learner.opened.file_sha256.hex(),
        "swarm": "the swarm",
        "seed": "7",
        "frozen": "",
    }


def test_earlier_round_that_is_kept_can_be_exported(
    make_opening: MakeOpening, tmp_path: Path
) -> None:
    learner = open_learner(replace(make_opening(), kept_checkpoints=3))
    states = [apply(learner, number, [train(learner, number)]) for number in (1, 2, 3, 4)]
    path = tmp_path / "model.safetensors"
    assert learner.export(path, 3).round == 3
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        weights = file.get_tensor("0.weight")
    assert (metadata["round"], metadata["state"]) == ("3", states[2].state.root.hex())
    assert torch.equal(weights, safetensors.torch.load_file(states[2].state.path)["model/0.weight"])
    with pytest.raises(ConfigError, match="no checkpoint of round 1; there are those of 2, 3, 4"):
        learner.export(path, 1)


def test_export_to_where_nothing_can_be_written_is_explained(
    make_opening: MakeOpening, tmp_path: Path
) -> None:
    learner = open_learner(make_opening())
    with pytest.raises(ConfigError, match=r"cannot write .*: No such file or directory"):
        learner.export(tmp_path / "missing" / "model.safetensors")


def test_state_directory_of_another_model_is_not_overwritten(
    make_opening: MakeOpening, tmp_path: Path
) -> None:
    open_learner(make_opening()).close()
    task = tmp_path / "wider.py"
    task.write_text(TINY_TASK.read_text().replace("16)", "17)").replace("(16, 3)", "(17, 3)"))
    with pytest.raises(ConfigError, match="checkpoint of another model"):
        open_learner(make_opening(task=str(task)))


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (
            "type('Broken', (torch.optim.SGD,), {'step': lambda self: 1 / 0})(parameters)",
            r"wrong.py: optimizer\(\)'s step\(\) failed: ZeroDivisionError",
        ),
        ("torch.optim.LBFGS(parameters)", r"wrong.py: optimizer\(\) returned LBFGS, whose step"),
        ("torch.optim.SGD([nn.Parameter(torch.zeros(1))])", "over none of the parameters"),
    ],
    ids=["fails", "closure", "others' parameters"],
)
def test_optimizer_that_cannot_train_shows_at_the_start(
    make_opening: MakeOpening, tmp_path: Path, optimizer: str, message: str
) -> None:
    task = tmp_path / "wrong.py"
    source = TINY_TASK.read_text()
    task.write_text(source.replace("torch.optim.SGD(parameters, lr=0.1, momentum=0.9)", optimizer))
    with pytest.raises(ConfigError, match=message):
        open_learner(make_opening(task=str(task)))


def test_step_that_is_tried_at_the_start_is_none_of_the_training(
    make_opening: MakeOpening, tmp_path: Path
) -> None:
    learner = open_learner(make_opening())
    initial = load_task(str(TINY_TASK), builtin=False).make_model(7).state_dict()
    state = safetensors.torch.load_file(learner.opened.state.path)
    unmoved = safetensors.torch.load_file(apply(learner, 1, []).state.path)
    for name, tensor in initial.items():
        assert torch.equal(state[f"model/{name}"].reshape(tensor.shape), tensor)
        assert torch.equal(unmoved[f"model/{name}"].reshape(tensor.shape), tensor)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"local_unit": "days"}, "local unit 'days'"),
        ({"local_amount": 0.0}, "local amount 0"),
        ({"aggregation": "mode"}, "aggregation 'mode'"),
        ({"compression": "zip"}, "compression 'zip'"),
        ({"outer_momentum": 1.0}, "outer momentum 1"),
        ({"partition": "labels:x"}, "partition 'labels:x'"),
    ],
)
def test_settings_that_cannot_work_are_named(
    make_opening: MakeOpening, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        open_learner(make_opening(**settings))


def test_skewed_shards_are_used(make_opening: MakeOpening) -> None:
    sizes = [
        open_learner(
            make_opening(f"{i}", shard=(i, 3), partition="quantity:0.5")
        ).opened.sample_count
        for i in range(3)
    ]
    assert sum(sizes) == 480
    assert max(sizes) > 1.5 * min(sizes)


def test_swarm_that_evaluates_nothing_needs_no_test_data(
    make_opening: MakeOpening, tmp_path: Path
) -> None:
    task = tmp_path / "task.py"
    lacking = 'def test_dataset(data_dir):\n    raise FileNotFoundError("no test data here")\n'
    task.write_text(f"{TINY_TASK.read_text()}\n\n{lacking}")
    with pytest.raises(NoDataError, match="no test data here"):
        open_learner(make_opening("each", task=str(task)))
    learner = open_learner(make_opening("none", task=str(task), evaluate="none"))
    (state,) = run_rounds([learner], 1)
    assert (math.isnan(state.loss), state.metrics) == (True, ())
    with pytest.raises(ConfigError, match="evaluate 'now': write each, turn or none"):
        open_learner(make_opening("wrong", task=str(task), evaluate="now"))
