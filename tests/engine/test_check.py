"""`qvl check` by the real engine: what it compares, what it tells of another answer, and its exit codes."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from qvl.engine import checkpoint, cli
from qvl.engine.check import command
from qvl.engine.check.asks import asks
from qvl.engine.check.rows import Made, Model, Told, rows
from qvl.engine.checkpoint import Role
from qvl.engine.config import EngineConfig
from qvl.engine.errors import ConfigError
from qvl.engine.protocol import EmbedResult, RerankResult, Usage
from tests.conftest import Pair
from tests.parity.conftest import vllm_warnings

SEEN = ("picture", "page", "video")


def copied(folder: Path, out: Path, **config: object) -> Path:
    shutil.copytree(folder, out)
    said = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(said | config))
    return out


def names(role: Role) -> list[str]:
    return [name for ask in asks(role) for name in ask.items]


def answered(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    """The exit code, and the lines of standard output."""
    with vllm_warnings():
        code = cli.main(["check", "--dtype", "float32", *arguments])
    return code, capsys.readouterr().out.splitlines()


@pytest.mark.engine
def test_the_bundled_embedder_is_answered_as_by_its_authors(capsys: pytest.CaptureFixture[str]) -> None:
    code, (head, *told, last) = answered(capsys, "--embedder", "bundled")
    assert "equal ids, cosines of at least 0.999999" in head
    assert [line.split("  ")[1].strip() for line in told] == names("embedder")
    assert all(line.endswith("  ok") for line in told)
    assert (code, last.partition(",")[0]) == (0, f"all {len(told)} as the authors' code answers them")


@pytest.mark.engine
def test_other_answers_are_named(pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a model that differs in its vision tower alone."""
    other = copied(pair.reranker, tmp_path / "other-reranker")
    weights = load_file(other / "model.safetensors")
    weights["model.visual.merger.norm.weight"] *= 1.2
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    code, (_, *told, last) = answered(capsys, str(pair.reranker), "--against", str(other))
    compared = [name for ask in asks("reranker") if ask.answered for name in ask.items]
    wrong = [name for name in compared if any(word in name for word in SEEN)]
    assert len(told) == len(names("reranker"))
    assert [name for name, line in zip(names("reranker"), told, strict=True) if "DIFFERS" in line] == wrong
    assert code == 1
    assert last == f"{len(wrong)} of {len(told)} DIFFER from the authors' code: {', '.join(wrong)}"


@pytest.mark.engine
def test_what_quantize_says_compares_its_checkpoint(
    pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with vllm_warnings():
        assert cli.main(["quantize", str(pair.embedder), "--scheme", "int8", "-o", str(out)]) == 0
        line = capsys.readouterr().err.splitlines()[-1].partition("compare: qvl ")[2]
        code = cli.main(shlex.split(line))
    _, *told, last = capsys.readouterr().out.splitlines()
    assert [each.split("  ")[1].strip() for each in told] == names("embedder")
    compared = [name for ask in asks("embedder") if ask.answered for name in ask.items]
    assert [name for name, each in zip(names("embedder"), told, strict=True) if "0.9" in each] == compared
    assert (code, last.partition(",")[0]) == (0, f"all {len(told)} as the authors' code answers them")


def test_a_quantised_checkpoint_has_another_s_weights_or_none(pair: Pair, tmp_path: Path) -> None:
    small = copied(pair.embedder, tmp_path / "small-embedder", quantization_config={"quant_method": "fp8"})
    found = checkpoint.find(EngineConfig(models=(str(small), str(pair.reranker))))
    assert command.originals(found, ()) == {"reranker": pair.reranker}
    both = {"reranker": pair.reranker, "embedder": pair.embedder}
    assert command.originals(found, (str(pair.embedder),)) == both
    with pytest.raises(ConfigError, match="is quantised itself"):
        command.originals(found, (str(small),))


@pytest.mark.parametrize(
    ("theirs", "ours", "told"),
    [
        ([1, 2, 3], [1, 5, 3], "token 2 is 5, the authors' 2"),
        ([1, 2], [1, 2, 3], "token 3 is 3, the authors' none"),
        ([1, 2], [1], "token 2 is none, the authors' 2"),
    ],
)
def test_the_first_id_that_differs_is_named(theirs: list[int], ours: list[int], told: str) -> None:
    [row] = rows(Model("m", "embedder", "float32", False), ["a"], Told([theirs]), Made([ours]))
    assert row.wrong == told


@pytest.mark.parametrize(("dtype", "quantised", "most"), [("float32", False, 4e-4), ("bfloat16", True, 0.4)])
@pytest.mark.parametrize("logit", [0.0, -20.0])
def test_scores_that_look_alike_are_told_apart(
    logit: float, dtype: str, quantised: bool, most: float
) -> None:
    """Near 0 and 1 too, where every score is the same to four places."""
    model = Model("m", "reranker", dtype, quantised)
    room = most * max(1.0, abs(logit))
    for off, wrong in ((0.9 * room, False), (1.1 * room, True), (np.nan, True)):
        made = RerankResult(model="m", logits=np.array([logit + off], np.float32), usage=Usage())
        [row] = rows(model, ["a"], Told([[1]], np.array([logit], np.float32)), Made([[1]], made))
        assert bool(row.wrong) is wrong, off


def test_a_vector_of_no_numbers_or_of_none_is_another() -> None:
    model, told = Model("m", "embedder", "float32", False), Told([[1]], np.array([[1, 0]], np.float32))
    for vector, wrong in (((1, 1e-4), False), ((1, 1e-2), True), ((np.nan, 0), True), ((0, 0), True)):
        made = EmbedResult(model="m", vectors=np.array([vector], np.float32), usage=Usage())
        [row] = rows(model, ["a"], told, Made([[1]], made))
        assert bool(row.wrong) is wrong, vector
