"""What fits which GPU, against the published sizes."""

from __future__ import annotations

import pytest

from qvl.engine import family
from qvl.engine.family import GIB, MODELS, advice
from qvl.engine.machine import Gpu


@pytest.mark.parametrize(("model", "billions"), [*zip(MODELS, (2.13, 2.13, 8.77, 8.77), strict=True)])
def test_parameters_are_the_published_ones(model: family.Model, billions: float) -> None:
    assert model.parameters / 1e9 == pytest.approx(billions, rel=0.005)


@pytest.mark.parametrize("model", MODELS)
def test_a_head_of_its_own_takes_no_memory(model: family.Model) -> None:
    """The checkpoint has it; the engine cuts one row out of it as it passes by."""
    head = 0 if model.tied else 151_936 * model.hidden
    assert model.weights("bf16") == 2 * (model.parameters - head)


@pytest.mark.parametrize(
    ("gib", "sizes", "quantised"),
    [
        (141, "8B", False),
        (40, "8B", True),
        (24, "2B", False),
        (16, "2B", True),
        (10, "2B", False),
        (9, "2B", True),
        (4, "", False),
    ],
)
def test_the_largest_pair_that_fits_is_advised(gib: float, sizes: str, quantised: bool) -> None:
    commands = advice(Gpu("a GPU", int(gib * GIB), fp8=True))
    words = " ".join(commands).split()
    assert sorted({word[-2:] for word in words if word.startswith("Qwen/")}) == sizes.split()
    assert any("fp8" in command for command in commands) is quantised


def test_the_table_is_shown_without_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(family, "gpus", list)
    assert family.show() == 0
    said = capsys.readouterr().out
    assert all(model.name in said for model in MODELS)
    assert "No NVIDIA GPU" in said
    assert "qvl demo" in said


def test_the_table_names_each_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [Gpu("NVIDIA A100", 40 * GIB, fp8=False), Gpu("NVIDIA T4", 2 * GIB, fp8=False)]
    monkeypatch.setattr(family, "gpus", lambda: found)
    assert family.show() == 0
    said = capsys.readouterr().out
    assert "GPU 0: NVIDIA A100, 40 GiB" in said
    assert "computes in bf16: smaller, not faster" in said
    assert "no model of the family fits this GPU" in said
