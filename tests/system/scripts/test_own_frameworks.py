"""Two peers each of transformers.Trainer with LoRA adapters, and of Lightning: the examples as they
are, in real swarms, through the death of a trainer and of a daemon."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors import safe_open

from p2pd.tensor_dict_file import read_tensor_dict
from tests.forked_scripts import forked_scripts
from tests.system.real_swarm import (
    ROOT,
    RealPeer,
    RealSwarm,
    assert_equal_exports,
    exports_of_one_round,
    wait_until,
)
from tests.system.scripts.watched_example import EXAMPLES

SCRIPT = ROOT / "tests" / "system" / "scripts" / "watched_example.py"
NEEDS = {
    "lora_llama": ("transformers", "peft", "accelerate"),
    "lightning_digits": ("lightning",),
}
RATE = 1e-3
WARM_UP_STEPS = 20
TRAINER_STEPS = 100_000
STEPS = 3
TOGETHER = 5
SWARM_S = 300.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def wait_together(peers: list[RealPeer], rounds: int) -> None:
    """Return once both have averaged so many more rounds of one another's updates."""
    since = max(number for peer in peers for number in (0, *peer.averaged()))

    def together() -> bool:
        both = [
            {number for number, done in peer.averaged().items() if done.updates == 2}
            for peer in peers
        ]
        return len({number for number in both[0] & both[1] if number > since}) >= rounds

    wait_until(f"{rounds} rounds of both", together, SWARM_S)


def inner_steps(peer: RealPeer) -> tuple[int, int]:
    """The last round whose optimizer's state is on disk, and how many steps that has."""
    path = max((peer.state_dir / "trainer").glob("0-*.pt"))
    state = read_tensor_dict(path)["state"]
    return int(path.stem.partition("-")[2]), int(state[0]["step"])


def llama_rate(steps: int) -> float:
    """As transformers has "linear"."""
    left = (TRAINER_STEPS - steps) / (TRAINER_STEPS - WARM_UP_STEPS)
    return RATE * min(steps / WARM_UP_STEPS, left)


def digits_rate(steps: int) -> float:
    """As the example says it."""
    return RATE * min(1, (steps + 1) / WARM_UP_STEPS)


@pytest.fixture
def python(example: str, tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """By which the example is run: loading what it needs takes longer than all else here."""
    for needed in NEEDS[example]:
        pytest.importorskip(needed, reason=f"needs {needed}")
    with forked_scripts(tmp_path, [example, "torch._dynamo"], EXAMPLES) as command:
        yield command


@pytest.mark.parametrize(
    ("example", "travels", "settings", "rate"),
    [
        ("lora_llama", ".lora_", (), llama_rate),
        ("lightning_digits", "network.", ("--overlap",), digits_rate),
    ],
)
def test_peers_of_others_trainers_hold_equal_weights_whatever_is_killed(
    swarm: RealSwarm,
    python: tuple[str, ...],
    example: str,
    travels: str,
    settings: tuple[str, ...],
    rate: Callable[[int], float],
) -> None:
    one, two = peers = [RealPeer(swarm, name) for name in ("founder", "two")]
    script: tuple[str | Path, ...] = ("--", *python, SCRIPT, example)
    work = ("--local-steps", str(STEPS), "--grace", "30", "--min-peers", "2")
    swarm.create(*work, *settings, *script, one.data_dir, within_s=SWARM_S)
    listen = ("--listen", "127.0.0.1:0")
    one.join(*listen, *script, one.data_dir)
    two.join(swarm.link, *listen, *script, two.data_dir)
    wait_together(peers, 1)
    worker = one.status().worker_pid
    assert worker
    os.kill(worker, signal.SIGKILL)
    os.kill(two.status().pid, signal.SIGKILL)
    assert two.program is not None
    assert two.program.wait_end() == -signal.SIGKILL
    two.join(*listen)
    wait_together(peers, TOGETHER)
    one.control.pause()  # so that both stand still: a round needs two
    assert_equal_exports(peers, swarm.directory)
    for peer in peers:
        number, steps = inner_steps(peer)
        # What a kill cut off, or had not written yet, may be lost.
        assert STEPS * (number - 2) <= steps <= STEPS * number, "the inner state goes on"
        rates = [line.split() for line in (peer.data_dir / "steps").read_text().splitlines()[:-1]]
        assert len(rates) > STEPS * TOGETHER
        for at, was in rates:
            assert float(was) == pytest.approx(rate(int(at))), "the schedule goes on"
    for path in exports_of_one_round(peers, swarm.directory).values():
        with safe_open(path, "numpy") as exported:
            names = list(exported.keys())
        assert names
        assert all(travels in name for name in names), "nothing else travels"
