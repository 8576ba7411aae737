"""An example that is run as it is, and watched: ``watched_example.py EXAMPLE DIRECTORY``.

Before each step it leaves a line in DIRECTORY/steps: the swarm's steps, and the learning rate.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "scripts"


def watching(callback: type[Any], path: Path) -> type[Any]:
    """``callback``, with its eyes on the learning rate."""

    class Watching(callback):  # type: ignore[misc]  # of transformers or of lightning
        def on_step_begin(self, *given: Any, **parts: Any) -> None:
            self._look(parts["optimizer"])

        def on_train_batch_start(self, trainer: Any, *given: Any) -> None:
            self._look(trainer.optimizers[0])

        def _look(self, optimizer: Any) -> None:
            with path.open("a") as file:
                print(self.swarm.steps, optimizer.param_groups[0]["lr"], file=file, flush=True)

    return Watching


def main() -> None:
    """Run it."""
    example, directory = sys.argv[1:]
    sys.path.insert(0, str(EXAMPLES))
    module: Any = importlib.import_module(example)
    module.SwarmCallback = watching(module.SwarmCallback, Path(directory) / "steps")
    sys.argv = [example, "-"]
    module.main()


if __name__ == "__main__":
    main()
