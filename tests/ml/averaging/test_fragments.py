"""A model in fragments: a round exchanges one of them, and training goes on from the rest."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ml.averaging.messages import Contribution, PartResult
from ml.learner import Learner
from ml.opening import StateReady, Trained
from ml.state.manifest import TensorSpec
from ml.state.tensor_file import AnyArray
from ml.update.parts import segments_of
from protocol.errors import VerificationError
from tests.ml.conftest import MakeOpening
from tests.ml.running import (
    apply,
    averager_of,
    model_of,
    open_learner,
    open_three,
    run_rounds,
    train,
)

FRAGMENTS = 3


def parameters_of(learner: Learner) -> dict[str, AnyArray]:
    state = averager_of(learner)._state
    return {
        spec.name: state.read(spec, 0, spec.element_count).copy() for spec in _parameters(learner)
    }


def exchanged_in(learner: Learner, round_number: int) -> dict[str, NDArray[np.bool_]]:
    """Of each parameter, which of its numbers a round exchanges."""
    places = {spec.name: np.zeros(spec.element_count, bool) for spec in _parameters(learner)}
    rules = averager_of(learner)._rules
    place = rules.place_of(round_number, 0, 1)
    grain = rules.encoding.block_elements
    for segment in segments_of(averager_of(learner)._manifest, *place, grain):
        if segment.spec.has_momentum:
            places[segment.spec.name][segment.start : segment.stop] = True
    return places


def _parameters(learner: Learner) -> list[TensorSpec]:
    return [spec for spec in averager_of(learner)._manifest.tensors if spec.has_momentum]


@pytest.mark.parametrize("compression", ["none", "int8"])
def test_a_round_moves_its_fragment_and_nothing_else(
    make_opening: MakeOpening, compression: str
) -> None:
    settings: dict[str, Any] = {"fragments": FRAGMENTS, "compression": compression}
    learners = open_three(
        make_opening, local_unit="steps", local_amount=3, outer_momentum=0.5, **settings
    )
    seen, moved = dict.fromkeys(parameters_of(learners[0]), 0), 0
    for round_number in range(1, FRAGMENTS + 1):
        before = parameters_of(learners[0])
        states = run_round(learners, round_number)
        assert len({state.state.root for state in states}) == 1
        after = parameters_of(learners[0])
        for name, places in exchanged_in(learners[0], round_number).items():
            changed = before[name] != after[name]
            assert not changed[~places].any()
            moved += int(changed.sum())
            seen[name] += int(places.sum())
    assert moved > 0
    sizes = {spec.name: spec.element_count for spec in _parameters(learners[0])}
    assert seen == sizes, "each number is exchanged once in so many rounds"


def test_training_goes_on_from_what_was_not_exchanged(make_opening: MakeOpening) -> None:
    """What a fragment's update says is all that was learned since the last one of its kind."""
    learner = open_learner(
        make_opening(fragments=2, compression="none", local_unit="steps", local_amount=3)
    )
    first = parameters_of(learner)
    apply(learner, 1, [train(learner, 1)])
    update = train(learner, 2)
    trained = model_of(learner).state_dict()
    own = {name: tensor.numpy().reshape(-1).copy() for name, tensor in trained.items()}
    apply(learner, 2, [update])
    after, moved = parameters_of(learner), 0
    for name, places in exchanged_in(learner, 2).items():
        # Nobody else takes part, so the state follows this peer's own model.
        assert np.allclose(after[name][places], own[name][places], atol=1e-6)
        moved += int((after[name] != first[name])[places].sum())
    assert moved > 0


def test_peers_learn_in_fragments(make_opening: MakeOpening) -> None:
    states = run_rounds(open_three(make_opening, fragments=2, compression="int8"), 6)
    assert len({state.state.root for state in states}) == 1
    assert states[0].leading > 0.95


def test_all_reduce_of_a_fragment_comes_to_what_a_mesh_does(make_opening: MakeOpening) -> None:
    settings: dict[str, Any] = {"fragments": 2, "local_unit": "steps", "local_amount": 3}
    ring = open_three(make_opening, "ring", exchange="allreduce", **settings)
    mesh = open_three(make_opening, "mesh", **settings)
    for round_number in (1, 2, 3):
        states = [apply_all(ring, round_number), run_round(mesh, round_number)]
        assert len({state.state.root for state in states[0]}) == 1
        found, expected = parameters_of(ring[0]), parameters_of(mesh[0])
        for name, values in expected.items():
            assert np.allclose(found[name], values, atol=1e-5)


def test_update_of_another_fragment_is_refused(make_opening: MakeOpening) -> None:
    learner = open_learner(make_opening(fragments=2))
    path = Path(train(learner, 1).updates[0].path)
    learner.check_update(1, path)
    learner.check_update(3, path)
    with pytest.raises(VerificationError):
        learner.check_update(2, path)


def test_peer_that_is_opened_again_goes_on_with_what_it_kept(make_opening: MakeOpening) -> None:
    def third_update(name: str, *, restarts: bool) -> bytes:
        opening = make_opening(name, fragments=2, local_amount=0.2)
        learner = open_learner(opening)
        for round_number in (1, 2):
            apply(learner, round_number, [train(learner, round_number)])
            if restarts:
                learner.close()
                learner = open_learner(opening)
        return train(learner, 3).updates[0].root

    assert third_update("a", restarts=True) == third_update("b", restarts=False)


@pytest.mark.parametrize(
    "settings", [{"fragments": 2}, {"compression": "topk:4", "left_over": "stay"}], ids=str
)
def test_peer_that_was_away_keeps_what_it_learned_and_sends_nothing_twice(
    make_opening: MakeOpening, settings: dict[str, Any]
) -> None:
    """The state that it takes from others has its update in it."""
    learners = [
        open_learner(make_opening(f"peer {i}", local_unit="steps", local_amount=3, **settings))
        for i in range(2)
    ]
    run_round(learners, 1)
    updates = [train(learner, 2) for learner in learners]
    state = apply(learners[1], 2, updates)
    learners[0].load_state(2, state.state.path, state.state.root)
    for spec in _parameters(learners[0]):
        here, there = (left_over_of(learner, spec) for learner in learners)
        assert np.array_equal(here, there), "both trained on the same data"
    assert any(left_over_of(learners[0], spec).any() for spec in _parameters(learners[0]))
    states = run_round(learners, 3)
    assert states[0].state.root == states[1].state.root


@pytest.mark.parametrize("without", [None, 1])
@pytest.mark.parametrize("exchange", ["mesh", "allreduce"])
def test_averager_that_dies_while_its_update_is_exchanged_knows_it_again(
    make_opening: MakeOpening, exchange: str, without: int | None
) -> None:
    """Nobody asks it for the update again before the round ends. ``without``: its update, or a
    part of it, is not in the average."""

    def third_updates(prefix: str, *, dies: bool) -> list[bytes]:
        settings: dict[str, Any] = {"fragments": 2, "exchange": exchange}
        openings = [
            make_opening(f"{prefix} {i}", shard=(i, 3), local_amount=0.2, **settings)
            for i in range(3)
        ]
        learners = [open_learner(opening) for opening in openings]
        parts = 3 if exchange == "allreduce" else 1
        for round_number in (1, 2):
            updates = [train(learner, round_number, parts=parts) for learner in learners]
            if dies:
                learners[1].close()
                learners[1] = open_learner(openings[1])
            if exchange == "allreduce":
                apply_reduced(learners, round_number, updates, without)
            else:
                averaged = [one for i, one in enumerate(updates) if i != without]
                for learner in learners:
                    apply(learner, round_number, averaged)
        update = train(learners[1], 3, parts=parts)
        return [one.root for one in update.updates]

    assert third_updates("a", dies=True) == third_updates("b", dies=False)


@pytest.mark.parametrize("dropped", [0, 1, 2])
def test_what_a_dropped_part_would_have_sent_is_left_over_again(
    make_opening: MakeOpening, dropped: int
) -> None:
    settings: dict[str, Any] = {"fragments": 2, "local_unit": "steps", "local_amount": 3}
    learners = open_three(make_opening, exchange="allreduce", **settings)
    apply_all(learners, 1)
    before = parameters_of(learners[0])
    names = [spec.name for spec in _parameters(learners[0])]
    updates = [train(learner, 2, parts=3) for learner in learners]
    trained = model_of(learners[0]).state_dict()
    # All that the peer's own model is away from the base, by earlier rounds too.
    learned = {name: before[name] - trained[name].numpy().reshape(-1) for name in names}
    apply_reduced(learners, 2, updates, without=dropped)
    exchanged = exchanged_in(learners[0], 2)
    rules = averager_of(learners[0])._rules
    missing = segments_of(averager_of(learners[0])._manifest, *rules.place_of(2, dropped, 3), 1)
    kept_numbers = 0
    for spec in _parameters(learners[0]):
        kept = ~exchanged[spec.name]
        for segment in missing:
            if segment.spec == spec:
                kept[segment.start : segment.stop] = True
        found = left_over_of(learners[0], spec)
        assert np.allclose(found[kept], learned[spec.name][kept], atol=1e-6)
        assert not found[~kept].any()
        kept_numbers += int((kept & exchanged[spec.name]).sum())
    assert kept_numbers > 0


def left_over_of(learner: Learner, spec: TensorSpec) -> NDArray[np.float32]:
    """Where the next training begins, as seen from the state."""
    averager = averager_of(learner)
    state, writer = averager._state, averager._update_writer
    values = state.read(spec, 0, spec.element_count).astype(np.float32)
    feedback = writer._feedback
    assert feedback is not None
    return values - feedback.begin_with(spec, 0, values)


def test_a_fragment_takes_its_share_of_the_bytes(make_opening: MakeOpening) -> None:
    whole = open_learner(make_opening("whole")).opened.max_update_bytes
    learner = open_learner(make_opening("cut", fragments=FRAGMENTS))
    sizes = []
    for round_number in range(1, FRAGMENTS + 1):
        update = train(learner, round_number)
        sizes.append(update.updates[0].size_bytes)
        apply(learner, round_number, [update])
    assert max(sizes) == learner.opened.max_update_bytes
    assert max(sizes) < whole / FRAGMENTS + 1000


def run_round(learners: list[Learner], round_number: int) -> list[StateReady]:
    updates = [train(learner, round_number) for learner in learners]
    return [apply(learner, round_number, updates) for learner in learners]


def apply_all(learners: list[Learner], round_number: int) -> list[StateReady]:
    """An all-reduce round, each peer the owner of one part."""
    updates = [train(learner, round_number, parts=len(learners)) for learner in learners]
    return apply_reduced(learners, round_number, updates)


def apply_reduced(
    learners: list[Learner], round_number: int, updates: list[Trained], without: int | None = None
) -> list[StateReady]:
    """The same of what was trained; the owner of part ``without`` is gone."""
    parts = len(learners)
    results = []
    for part, owner in enumerate(learners):
        contributions = [
            Contribution(f"peer {index}", update.updates[part].path, update.sample_count)
            for index, update in enumerate(updates)
        ]
        if part != without:
            reduced = owner.reduce(round_number, part, parts, contributions)
            results.append(PartResult(part, reduced.update.path))
    return [learner.apply_parts(round_number, parts, results) for learner in learners]
