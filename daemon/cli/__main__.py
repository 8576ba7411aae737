"""``python -m daemon.cli``: the same as the ``p2pd`` command."""

import sys

from daemon.cli import main

sys.exit(main())
