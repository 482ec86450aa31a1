"""The `qvl` command. Options derive from the settings dataclasses; everything heavy loads in its command."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter, UnknownOptionError

from qvl.engine.check.cli import check
from qvl.engine.config import EngineConfig, Limits, MediaConfig, ServerConfig
from qvl.engine.errors import ConfigError, NotStarted, QvlError, Unavailable
from qvl.engine.jobs.cli import batch
from qvl.engine.jobs.settings import JobConfig
from qvl.engine.logs import flush
from qvl.engine.options import (
    SOURCES,
    ConfigFile,
    Model,
    Out,
    Source,
    flat,
    lines,
    shown_default,
)
from qvl.engine.port import DIED, USAGE_ERROR
from qvl.engine.quantize.cli import quantize
from qvl.engine.search.cli import search
from qvl.engine.start import rest_collector
from qvl.ray_serve.config import BulkConfig, ClusterConfig, DeployConfig, Replicas

EPILOGUE = (
    "Every option can also come from the environment (`QVL_PORT` for `--port`; of several values one a line) "
    "or from `--config`."
)

rest_collector()

for settings, heading in (
    (JobConfig, "Job"),
    (EngineConfig, "Models"),
    (ServerConfig, "Server"),
    (Limits, "Limits"),
    (MediaConfig, "Media"),
    (ClusterConfig, "Ray (with --ray)"),
    (Replicas, "Ray (with --ray)"),
    (BulkConfig, "Ray (with --ray)"),
):
    flat(settings, heading)

app = App(
    name="qvl",
    help="Serves Qwen3-VL-Embedding and Qwen3-VL-Reranker on vLLM.",
    help_epilogue=EPILOGUE,
    version=lambda: f"qvl {version('qvl')}",
    config=SOURCES,
    default_parameter=Parameter(negative_iterable=(), show_default=shown_default, env_var_split=lines),
    result_action="return_value",
)
for command in (search, quantize, batch, check):
    app.command(command)


@app.command
def serve(
    *model: Model,
    server: ServerConfig,
    ray: bool = False,
    cluster: ClusterConfig = ClusterConfig(),  # noqa: B008 - frozen
    config: ConfigFile = None,
) -> int:
    """Serve an embedder and/or a reranker over HTTP.

    Parameters
    ----------
    model
        Checkpoint folders or hub names; the checkpoint tells its role. `bundled`: the demo's tiny pair.
    ray
        Run the replicas on Ray Serve: joins a cluster, or starts one here.
    """
    del model, config  # read by the option sources
    if ray:
        from qvl.ray_serve.run import serve as serve_on_ray

        return serve_on_ray(DeployConfig(server=server, cluster=cluster))
    if server.replicas > 1:
        from qvl.engine.replicas.supervisor import supervise

        return supervise(server)
    from qvl.engine.server import serve as serve_here

    return serve_here(server)


@app.command
def embed(
    source: Source,
    /,
    *,
    out: Out,
    instruction: str | None = None,
    dimensions: int | None = None,
    ray: bool = False,
    bulk: BulkConfig = BulkConfig(),  # noqa: B008 - frozen
    job: JobConfig = JobConfig(),  # noqa: B008 - frozen
    engine: EngineConfig | None = None,
    config: ConfigFile = None,
) -> int:
    """Embed every line of a file; a rerun after a crash goes on where it was.

    Parameters
    ----------
    source
        JSON lines: strings, or items like {"id", "text", "image", "video", "instruction"}; an image may be a
        path from IN's folder, "metadata" goes along into OUT.jsonl, ids are as given, the same twice or not.
        With --ray also parquet with these as columns, or a folder of such files, pictures, videos and texts.
    out
        OUT.jsonl, OUT.npz or OUT.parquet; with --ray a folder, a parquet file for each block.
    instruction
        What the vectors are for (default: the model's own).
    dimensions
        Matryoshka prefix of the vectors (default: all).
    ray
        Spread the work over a Ray cluster: joins one, or starts one here.
    """
    del config
    if ray:
        from qvl.ray_serve.bulk import embed_corpus

        return embed_corpus(source, out, job, engine, instruction, dimensions, bulk)
    from qvl.engine.jobs.commands import embed_file

    return embed_file(source, out, job, engine, instruction, dimensions)


@app.command
def rerank(
    source: Source,
    /,
    *,
    out: Out,
    instruction: str | None = None,
    job: JobConfig = JobConfig(),  # noqa: B008 - frozen
    engine: EngineConfig | None = None,
    config: ConfigFile = None,
) -> int:
    """Score each line's documents against its query; a rerun after a crash goes on where it was.

    Parameters
    ----------
    source
        JSON lines: {"id", "query", "documents", "instruction", "top_n"}.
    out
        OUT.jsonl or OUT.parquet.
    instruction
        What makes a document relevant, for lines without their own (default: the model's).
    """
    del config
    from qvl.engine.jobs.commands import rerank_file

    return rerank_file(source, out, job, engine, instruction)


@app.command
def models(*, config: ConfigFile = None) -> int:
    """Show which published models fit the GPUs of this machine."""
    del config
    from qvl.engine.family import show

    return show()


@app.command
def demo(
    *,
    keep: bool = False,
    ask: tuple[str, ...] = (),
    show: Annotated[bool, Parameter(name="--open")] = False,
    config: ConfigFile = None,
) -> int:
    """Start a real server with the tiny pair, then embed, rank and rerank drawn pictures, pages and videos.

    Parameters
    ----------
    keep
        Leave the server running until Ctrl-C, to try requests of your own; in a terminal, ask it questions.
    ask
        A question of your own, e.g. "a small striped yellow ring and a small blue ring at night"; may be
        given several times.
    show
        Write the answers with their pictures to a page, and open it in the browser where there is one.
    """
    del config
    from qvl.engine.demo.run import demo

    return demo(keep=keep, ask=ask, show=show)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake is one line on stderr and exit code 2."""
    try:
        result = app(list(sys.argv[1:] if argv is None else argv), exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except CycloptsError as error:
        error.verbose = False
        if isinstance(error, UnknownOptionError) and error.token.value == "-":
            return _fail(
                "standard input (-) cannot be used, because the input is read twice: give a file", USAGE_ERROR
            )
        return _fail(str(error), USAGE_ERROR)
    except ConfigError as error:
        return _fail(str(error), DIED if isinstance(error, NotStarted) else USAGE_ERROR)
    except QvlError as error:
        where = f"{error.param}: " if error.param and not error.message.startswith(error.param) else ""
        return _fail(f"{where}{error.message} ({error.code})", DIED if isinstance(error, Unavailable) else 1)
    except BrokenPipeError:
        # The reader (`| head`) has gone; without this the interpreter's own flush at exit complains again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except ModuleNotFoundError as error:
        if error.name == "ray":
            return _fail("Ray Serve is not installed: pip install 'qvl[ray]'", USAGE_ERROR)
        if error.name not in {"vllm", "torch", "compressed_tensors"}:
            raise
        return _fail(
            "vLLM is not installed: pip install 'qvl[gpu]', or 'qvl[cpu]' without a GPU", USAGE_ERROR
        )
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", USAGE_ERROR)
    return result if isinstance(result, int) else 0


def _fail(message: str, code: int) -> int:
    flush()
    sys.stderr.write(f"qvl: {' '.join(message.split())}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
