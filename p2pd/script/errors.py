"""What goes wrong for those who train in a swarm."""


class SwarmError(Exception):
    """The swarm cannot be joined, or training in it cannot go on. The text says what to do.

    >>> from p2pd.script.place import connect
    >>> try:
    ...     connect("/nowhere/trainer.sock")
    ... except SwarmError as error:
    ...     print(error)
    the p2pd that started this script ... /nowhere/trainer.sock (No such file or directory): ...
    """
