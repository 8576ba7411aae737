"""What went wrong with a request, for the log and for the daemon."""

import logging
import traceback

logger = logging.getLogger(__name__)


class FailureLog:
    """Tells unexpected errors in full the first time: what is tried again may fail in the same way
    for hours.

    Example (ml/averaging/__main__.py)::

        except Exception as error:
            self._failures.add(number, error)
            return Failed("internal", f"{type(error).__name__}: {error}")
    """

    def __init__(self) -> None:
        self._logged_stack: list[str] = []

    def add(self, number: int, error: Exception) -> None:
        """``error`` ended the request of that number."""
        stack = traceback.format_tb(error.__traceback__)
        is_known, self._logged_stack = stack == self._logged_stack, stack
        if is_known:
            logger.error("request %d failed as before: %s: %s", number, type(error).__name__, error)
        else:
            logger.error("request %d failed", number, exc_info=error)
