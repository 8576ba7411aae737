"""Other people's text made safe to show."""


def printable(text: str) -> str:
    """``text`` on one line, with everything that a terminal could act on written out.

    Names and reasons come from other peers: escape codes could clear the screen or fake a line, and
    bidirectional controls could turn it around.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
