"""The version of p2pd; the package's metadata is made from it.

>>> len([int(part) for part in VERSION.split(".")])
3
"""

VERSION = "0.1.0"
