"""The version of p2pd; the package's metadata is made from it.

>>> major, minor, patch = map(int, VERSION.split("."))
"""

VERSION = "0.1.0"
