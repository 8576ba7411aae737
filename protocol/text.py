"""Text for people: other people's made safe to show, and counts as one reads them."""


def printable(text: str) -> str:
    """``text`` on one line, with everything that a terminal could act on written out.

    Names and reasons come from other peers: escape codes could clear the screen or fake a line, and
    bidirectional controls could turn it around.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def excerpt(text: str, most: int = 200) -> str:
    """The first ``most`` characters of what somebody else wrote, printable.

    >>> excerpt("a\\tb" + "c" * 300, most=5)
    'a\\\\tbcc…'
    """
    return printable(text) if len(text) <= most else f"{printable(text[:most])}…"


def counted(count: int, noun: str) -> str:
    """For example ``1 peer`` and ``2 peers``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
