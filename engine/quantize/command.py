"""`qvl quantize`: check, search (AWQ), write beside the place, move into place."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError

from qvl.engine import checkpoint, weights
from qvl.engine.checkpoint import Checkpoint, Role
from qvl.engine.errors import CheckpointError, ConfigError
from qvl.engine.jobs.progress import say
from qvl.engine.prepare import Ready
from qvl.engine.quantize import awq, files, original
from qvl.engine.quantize.examples import prompts
from qvl.engine.quantize.schemes import Scheme, scheme_of
from qvl.engine.text_side import load_text_side


def quantize(
    model: str,
    out: Path,
    scheme: Scheme,
    *,
    role: Role | None = None,
    vision: bool = False,
    calibration: Path | None = None,
) -> None:
    """Write the folder `out`. Raises ConfigError or CheckpointError; a failure leaves nothing behind."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    found = checkpoint.of_role(role, model)
    if calibration and scheme != "awq":
        raise ConfigError(f"--calibration goes with awq; {scheme} needs no examples")
    _refuse(found, out, scheme, vision)
    examples = asyncio.run(prompts(found, load_text_side(found), calibration)) if scheme == "awq" else []
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        part.chmod(0o755)
        count = _write(found, part, scheme, vision, examples)
        part.rename(out)
    except SafetensorError as error:
        raise CheckpointError(f"cannot read {found.path}, or not write {out}: {error}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    sizes = [weights.size(folder) / 1e6 for folder in (found.path, out)]
    say(f"{out}: {count} matrices as {scheme}, {sizes[0]:,.1f} MB before, {sizes[1]:,.1f} MB now")
    say("compare: " + shlex.join(["qvl", "check", str(out), "--against", str(found.path)]))


def _refuse(found: Checkpoint, out: Path, scheme: Scheme, vision: bool) -> None:
    if out.exists():
        raise ConfigError(f"{out} exists; name a folder that does not")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"cannot write {out}: there is no folder {out.absolute().parent}")
    if "quantization_config" in found.config:
        raise ConfigError(f"{found.path} is quantised already; start from the original checkpoint")
    weights.check(found.path)
    group = scheme_of(scheme).weights.group_size
    if group is None:
        return
    if vision:
        raise ConfigError(f"--vision goes with fp8 and int8; {scheme} is for the text layers")
    for name in ("hidden_size", "intermediate_size"):
        if found.text[name] % group:
            raise ConfigError(
                f"{scheme} rounds groups of {group}, and {name} is {found.text[name]}: use int8 or fp8"
            )


def _write(found: Checkpoint, part: Path, scheme: Scheme, vision: bool, examples: list[Ready]) -> int:
    """How many matrices were quantised."""
    instead = _searched(found, examples) if scheme == "awq" else {}
    with _progress("matrices", weights.size(found.path)) as report:
        count = files.write(found.path, part, scheme, vision=vision, instead=instead, report=report)
    files.write_config(found, part, scheme, vision=vision)
    return count


@original.within_memory()
def _searched(found: Checkpoint, examples: list[Ready]) -> dict[str, Any]:
    """All weights, scaled for the least error of four bits."""
    model = original.load(found.path)
    total = len(model.model.language_model.layers) * 3
    with _progress("AWQ's search", total) as report:
        awq.scale(model, lambda: _run(model, examples), lambda: report(1))
    return {name: weight.cpu() for name, weight in model.state_dict().items()}


def _run(model: Any, examples: list[Ready]) -> None:
    original.last_states(model, examples)


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; elsewhere a line."""
    if not sys.stderr.isatty():
        say(f"{what} ...")
        yield lambda _: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda step: progress.advance(bar, step)
