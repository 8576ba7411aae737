"""Requests with the settings that most tests share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from ml.opening import Opening
from ml.task.choice import TaskChoice
from protocol.statements.swarm import RoundSettings

TINY_TASK = Path(__file__).parent / "tiny_task.py"

MakeOpening = Callable[..., Opening]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """More threads than idle cores slow each other down."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _learners_end() -> Iterator[None]:
    """Each holds files and memory, of which a process has no end."""
    yield
    from tests.ml.running import close_learners

    close_learners()


@pytest.fixture
def trainers_at_once(with_forks: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainers that a test starts begin at once."""
    for name, value in with_forks.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def make_opening(tmp_path: Path) -> MakeOpening:
    """Makes requests to open the tiny task, each with a state directory of its own."""

    def make(
        name: str = "peer",
        *,
        task: str = str(TINY_TASK),
        builtin: bool = False,
        shard: tuple[int, int] = (0, 1),
        partition: str = "iid",
        **settings: object,
    ) -> Opening:
        choice = TaskChoice(task, builtin, *shard, data_dir="", seed=7, partition=partition)
        return Opening(
            choice=choice,
            settings=RoundSettings(**settings),  # type: ignore[arg-type]  # any of its fields
            state_dir=str(tmp_path / name),
            threads=1,
        )

    return make
