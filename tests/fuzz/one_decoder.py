"""One decoder under atheris, as :mod:`tests.fuzz.campaign` starts it.

python -m tests.fuzz.one_decoder DECODER CORPUS [libFuzzer's options]
"""

import sys

import atheris

with atheris.instrument_imports(include=["daemon", "ml", "protocol", "relay", "rendezvous"]):
    from tests.fuzz.decoders import feed


def main() -> None:
    """Until the inputs are used up, or one does harm."""
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, lambda data: feed(name, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
