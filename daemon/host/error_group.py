"""What an exception group is about, for those who have to tell a person one thing."""

from protocol.errors import P2PDError


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """An error that says what to do, if one is in the group, else the first of any kind."""
    leaves = _leaves(group)
    return next((leaf for leaf in leaves if isinstance(leaf, P2PDError)), leaves[0])


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
