"""An outside judge: vLLM's own load generator, `vllm bench serve`, against each of the servers.

It sends random token strings. qvl puts its template around each (about 20 tokens more), as the right answer
needs; stock vLLM embeds `input` as it comes, so its texts are shorter and its answers not the model's. The
numbers are vLLM's own; only their file is read here. Called through its module, because the `vllm` command
asks for a distribution of that name, which the CPU build lacks.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from benchmarks import processes, rows
from benchmarks.asks import Role
from benchmarks.contestants import contestants
from benchmarks.drive import Entrant
from benchmarks.plan import Options
from benchmarks.rows import Row
from benchmarks.run import entered, prepared
from benchmarks.scene import Scene

_MAIN = (
    "from vllm.benchmarks.serve import add_cli_args, main; "
    "from vllm.utils.argparse_utils import FlexibleArgumentParser as P; "
    "p = P(); add_cli_args(p); main(p.parse_args())"
)
_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    role: Role
    backend: str
    endpoint: str
    dataset: tuple[str, ...]
    items: int
    """Of one request."""
    prompts: tuple[int, int]
    """Requests on a CPU and on a GPU; a case's `concurrency` likewise. In vLLM's rerank data set a prompt is
    one document, and `items` of them make a request."""
    concurrency: tuple[int, int]


CASES = (
    Case(
        "judge-embed-32",
        "embedder",
        "openai-embeddings",
        "/v1/embeddings",
        ("--dataset-name", "random", "--random-input-len", "32", "--random-output-len", "1"),
        1,
        (1000, 12000),
        (64, 256),
    ),
    Case(
        "judge-embed-512",
        "embedder",
        "openai-embeddings",
        "/v1/embeddings",
        ("--dataset-name", "random", "--random-input-len", "512", "--random-output-len", "1"),
        1,
        (200, 2000),
        (8, 64),
    ),
    Case(
        "judge-rerank",
        "reranker",
        "vllm-rerank",
        "/rerank",
        ("--dataset-name", "random-rerank", "--random-input-len", "256", "--random-batch-size", "25"),
        25,
        (250, 2500),
        (2, 8),
    ),
)


def run(options: Options, console: Console) -> tuple[list[Row], list[str]]:
    """As `benchmarks.run.run`."""
    made, missing = [], []
    logs = Path(tempfile.mkdtemp(prefix="qvl-judge-"))
    date = rows.now()
    for role in options.models:
        scene = prepared(options, console, role, logs, date)
        with ExitStack() as stack:
            chosen = contestants(options.contestants, options.api_servers, options.replicas)
            for entrant in entered(scene, stack, chosen):
                for row in _judged(scene, entrant, [case for case in CASES if case.role == role]):
                    rows.append(options.out, [row])
                    made.append(row)
        missing += scene.missing
    return made, missing


def _judged(scene: Scene, entrant: Entrant, cases: Sequence[Case]) -> Iterator[Row]:
    for case in cases:
        out = scene.logs / f"{case.name}-{entrant.name}.json"
        try:
            with scene.console.status(f"{case.name}: vllm bench serve, {entrant.name}"):
                processes.run(
                    _command(scene, entrant, case, out),
                    scene.site.environment,
                    log=out.with_suffix(".log"),
                    seconds=_SECONDS,
                )
            said = orjson.loads(out.read_bytes())
        except (processes.DidNotStart, FileNotFoundError) as error:
            if isinstance(error, FileNotFoundError):
                error = processes.DidNotStart("vllm bench serve wrote no result")
            scene.left_out(f"{case.name} of {entrant.name}", error)
            continue
        yield _row(scene, entrant, case, said)


def _command(scene: Scene, entrant: Entrant, case: Case, out: Path) -> list[str]:
    place = int(scene.site.gpu)
    command = [sys.executable, "-c", _MAIN, "--base-url", entrant.server.url]
    command += ["--backend", case.backend, "--endpoint", case.endpoint, *case.dataset]
    command += ["--model", scene.site.checkpoint.name, "--tokenizer", str(scene.site.folder)]
    command += ["--num-prompts", str(case.prompts[place]), "--max-concurrency", str(case.concurrency[place])]
    command += ["--save-result", "--result-dir", str(out.parent), "--result-filename", out.name]
    return [*command, "--disable-tqdm", "--percentile-metrics", "e2el", "--metric-percentiles", "50,90,99"]


def _row(scene: Scene, entrant: Entrant, case: Case, said: dict[str, Any]) -> Row:
    prompts = case.prompts[int(scene.site.gpu)]
    asked = -(-prompts // case.items)
    missing = asked - int(said["completed"])
    return scene.row(
        case.name,
        "judge",
        entrant.name,
        concurrency=case.concurrency[int(scene.site.gpu)],
        items_per_s=said["request_throughput"] * case.items,
        failed=f"{missing} of {asked} requests failed (see the logs)" if missing else "",
        p50_ms=said.get("p50_e2el_ms"),
        p90_ms=said.get("p90_e2el_ms"),
        p99_ms=said.get("p99_e2el_ms"),
        requests=int(said["completed"]),
        seconds=said["duration"],
    )
