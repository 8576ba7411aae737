"""What goes wrong for those who train in a swarm."""


class SwarmError(Exception):
    """The swarm cannot be joined, or training in it cannot go on. The text says what to do.

    Example, in a training script::

        try:
            swarm = p2pd.join(link, model, optimizer)
        except p2pd.SwarmError as error:
            sys.exit(str(error))
    """
