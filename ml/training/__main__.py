"""The trainer process: ``python -m ml.training FD LIFELINE``, started by the daemon.

FD is the socket to the daemon (p2pd/trainer.py says what threads there are), LIFELINE a pipe that
ends with the daemon.

Example (ml/fork_server.py)::

    from ml.training.__main__ import main
"""

import logging
import os
import signal
import sys

from p2pd.channel import BrokenChannelError, Channel
from p2pd.importing import collector_off
from p2pd.process import end_with_parent, forbid_new_privileges, guard_group

NICENESS = 5

logger = logging.getLogger(__name__)


def main() -> None:
    """Serve the daemon."""
    guard_group(int(sys.argv[2]))
    end_with_parent()
    forbid_new_privileges()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon to act on
    os.nice(NICENESS)  # so that the daemon stays responsive
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s", level=logging.INFO)
    # Not before the guard has split off: torch is large.
    with collector_off():
        from ml.training.compiler_on_demand import leave_compiler_until_asked

        leave_compiler_until_asked()
        from ml.training.trainer import TaskTrainer
        from p2pd.trainer import TrainerEnd

    try:
        daemon = TrainerEnd(Channel(int(sys.argv[1])))
        daemon.serve(TaskTrainer(daemon.memories, daemon))
    except (OSError, BrokenChannelError) as error:
        logger.error("the channel to the daemon broke: %s", error)
        os._exit(1)


if __name__ == "__main__":
    main()
