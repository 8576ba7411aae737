"""Coverage-guided fuzzing of all decoders, each in a process of its own: ``make fuzz``.

    python -m tests.fuzz.campaign [--inputs N] [--seed N] [--found DIR] [DECODER …]

What a decoder raises beside its refusals is printed with its traceback, and the input is kept in
DIR; put it into tests/fuzz/corpus/DECODER/ once it is mended. Exit code 1 if there was any.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.decoders import DECODERS
from tests.fuzz.samples import samples

LONGEST_INPUT_BYTES = 8192
LONGEST_INPUT_S = 120
"""By the wall clock: on a machine that has other work a process may rest for most of a minute."""
ONE = "tests.fuzz.one_decoder"


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("decoders", nargs="*", metavar="DECODER", help="default: all")
    parser.add_argument("--inputs", type=int, default=10_000_000, help="all together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--found", type=Path, default=Path("fuzz-found"))
    options = parser.parse_args()
    names = options.decoders or sorted(DECODERS)
    unknown = set(names) - set(DECODERS)
    if unknown:
        parser.error(f"no decoder {', '.join(sorted(unknown))}; there are {', '.join(DECODERS)}")
    each = max(1, options.inputs // len(names))
    broken = []
    for name in names:
        print(f"{name}: {each} inputs from seed {options.seed}", flush=True)
        if not _fuzz(name, each, options.seed, options.found):
            broken.append(name)
    print(f"{each * len(names)} inputs; " + (f"broken: {', '.join(broken)}" if broken else "held"))
    return 1 if broken else 0


def _fuzz(name: str, inputs: int, seed: int, found: Path) -> bool:
    """Whether the decoder held."""
    found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        corpus = Path(directory)
        for number, data in enumerate(samples()[name]):
            (corpus / str(number)).write_bytes(data)
        done = subprocess.run(
            [
                *(sys.executable, "-m", ONE, name, directory),
                *(f"-runs={inputs}", f"-seed={seed}", f"-max_len={LONGEST_INPUT_BYTES}"),
                *(
                    "-rss_limit_mb=2048",
                    f"-timeout={LONGEST_INPUT_S}",
                    "-print_final_stats=0",
                    "-verbosity=0",
                ),
                f"-artifact_prefix={found.resolve()}/{name}-",
            ],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    if done.returncode:
        print((done.stdout + done.stderr)[-4000:], flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
