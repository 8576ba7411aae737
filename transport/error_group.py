"""One error instead of a group of them, for those who have to act on it or tell a person.

>>> first_error(ExceptionGroup("tasks", [KeyError("a"), P2PDError("the disk is full")]))
P2PDError('the disk is full')
"""

import asyncio

from protocol.errors import P2PDError


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """An error that says what to do, if one is in the group, else the first of any kind."""
    leaves = _leaves(group)
    return next((leaf for leaf in leaves if isinstance(leaf, P2PDError)), leaves[0])


async def leave_tasks(tasks: asyncio.TaskGroup, error: BaseException | None) -> None:
    """Leave ``tasks`` in an ``__aexit__`` that was given ``error``.

    An error of the ``async with`` block is not the group's affair: given to the group it would come
    out inside an ExceptionGroup, and whoever waits for it by its type would miss it. Only a
    cancellation is passed on, since the group has to know of it.
    """
    if isinstance(error, asyncio.CancelledError):
        await tasks.__aexit__(type(error), error, error.__traceback__)
    else:
        await tasks.__aexit__(None, None, None)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
