"""Calls pickled functions in a process of its own: triton decides at import whether it interprets kernels.

stdin: (function, args, kwargs) one after the other. stdout: their results.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@contextmanager
def worker(**environment: str) -> Iterator[Callable[..., Any]]:
    """`call(function, *args, **kwargs)`, done in a process with this environment."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.kernels.worker"],
        env={**os.environ, **environment},
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin and process.stdout
        requests, results = process.stdin, process.stdout

        def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            pickle.dump((function, args, kwargs), requests)
            requests.flush()
            return pickle.load(results)

        yield call
        requests.close()


def main() -> None:
    while True:
        try:
            function, args, kwargs = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(function(*args, **kwargs), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
