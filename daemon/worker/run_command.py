"""``python -m daemon.worker.run_command LIFELINE COMMAND…``: becomes the command, which then ends
when the daemon does.

The kernel kills it with the daemon (this survives the exec(3)); LIFELINE is a pipe that ends with
the daemon too, and what the command has started in its group is killed by that.
"""

import os
import sys

from p2pd.process import end_with_parent, forbid_new_privileges, guard_group

NICENESS = 5
EXIT_NOT_FOUND = 127


def main() -> None:
    """Become the command; the exit code 127 says that there is none."""
    guard_group(int(sys.argv[1]))
    end_with_parent()
    forbid_new_privileges()
    os.nice(NICENESS)  # so that the daemon stays responsive
    words = sys.argv[2:]
    try:
        os.execvp(words[0], words)
    except OSError as error:
        print(f"ERROR cannot run {words[0]!r}: {error.strerror}", file=sys.stderr)
        sys.exit(EXIT_NOT_FOUND)


if __name__ == "__main__":
    main()
