"""Fuzz one kind of file, guided by coverage: inputs that reach new code are kept and changed further.

    python -m tests.faults.fuzz TARGET FOLDER [--inputs 10000] [--seed 1]

It needs Atheris (in the `test` extra). The tests of hostile files draw inputs from the structure of each file and
ignore coverage; this script follows only coverage. An input that breaks something is saved in FOLDER as `crash-...`,
with a traceback on stderr; add it to a test. The last line on stdout is JSON with the guard's counts.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import atheris
from atheris.import_hook import instrument_imports

OURS = ["prep", "schemas", "train"]
READERS = ["PIL", "yaml"]
"""Packages whose branches also guide the search, because they parse the files, while our code only limits sizes."""

with instrument_imports(include=OURS + READERS):
    from tests.faults.fuzz_targets import TARGETS
    from tests.faults.guard import Guard, bounded_memory


def main() -> None:
    """Fuzz; never returns, since libFuzzer ends the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    folder, corpus = arguments.folder / "work", arguments.folder / "corpus"
    for made in (folder, corpus):
        made.mkdir(parents=True)
    target = TARGETS[arguments.target](folder)
    for number, seed in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(seed)
    guard = Guard(folder)

    def one_input(data: bytes) -> None:
        guard.attempt(lambda: target.attempt(data), data[:200])
        if guard.tried == arguments.inputs:
            counts = {"tried": guard.tried, "refused": guard.refused, "used": guard.accepted}
            # Flush the output, because libFuzzer ends the process without Python's normal shutdown.
            print(json.dumps(counts), flush=True)  # noqa: T201

    longest = max(map(len, target.seeds))
    flags = [f"-runs={arguments.inputs}", f"-seed={arguments.seed}", f"-max_len={2 * longest}"]
    # Keep all seeds: valid files run mostly the same code, but each is another starting point. The guard limits memory
    # and time; libFuzzer's own limits would include what torch and the model take.
    flags += ["-keep_seed=1", "-len_control=0", "-rss_limit_mb=0", f"-artifact_prefix={arguments.folder}/"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], one_input)
    with bounded_memory():
        atheris.Fuzz()


if __name__ == "__main__":
    main()
