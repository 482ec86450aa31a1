"""The yes/no head, cut out of weights as they pass by."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.parity.conftest import vllm_warnings

YES, NO = 3, 1


def cut(tied: bool, **weights: torch.Tensor) -> torch.Tensor:
    with vllm_warnings():
        from qvl.engine.model.pooler import ScorePooler
        from qvl.engine.model.qwen3_vl import QvlQwen3VL

    config = SimpleNamespace(tie_word_embeddings=tied, qvl_yes=YES, qvl_no=NO)
    model: Any = SimpleNamespace(pooler=ScorePooler(8), config=config)
    named = [(name.replace("__", "."), weight) for name, weight in weights.items()]
    assert [name for name, _ in QvlQwen3VL._tap_head(model, named)] == [name for name, _ in named]
    head: torch.Tensor = model.pooler.weight.data
    return head


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_it_is_cut_by_every_name(dtype: torch.dtype) -> None:
    rows, other = torch.randn(4, 8).to(dtype), torch.randn(4, 8)
    expected = rows[YES].float() - rows[NO].float()
    assert torch.equal(
        cut(False, model__language_model__embed_tokens__weight=other, lm_head__weight=rows), expected
    )
    assert torch.equal(cut(True, model__language_model__embed_tokens__weight=rows), expected)
    assert torch.equal(cut(True, language_model__embed_tokens__weight=rows), expected)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.uint8])
def test_codes_of_a_quantised_lm_head_are_not_weights(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"lm_head\.weight is quantised .*: quantise the model without it"):
        cut(False, lm_head__weight=torch.ones(4, 8).to(dtype), lm_head__weight_scale=torch.ones(4, 1))


def test_one_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"no lm_head\.weight, which the yes/no head is cut from"):
        cut(False, model__language_model__embed_tokens__weight=torch.ones(4, 8))
