"""The prompt rules that need no tokenizer."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvl.engine.prompt import EMBED_INSTRUCTION, Template, closed, embed_text, rerank_text
from qvl.engine.protocol import Content

TEMPLATE = Template("[", "|", "]")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("Find it", "Find it."),
        ("Find it.", "Find it."),
        ("  Find it ?\n", "Find it ?"),
        ("找到它。", "找到它。"),
        ("找到它", "找到它."),
        ("a+", "a+."),
        ("¿qué?", "¿qué?"),
        ("", ""),
        ("  \n", ""),
        (None, ""),
    ],
)
def test_instructions_end_in_punctuation(given: str | None, wanted: str) -> None:
    assert closed(given) == wanted


@given(st.text())
def test_closing_twice_changes_nothing(text: str) -> None:
    once = closed(text)
    assert closed(once) == once
    assert not once or unicodedata.category(once[-1]).startswith("P")


def test_an_item_instruction_goes_before_the_request_one_and_that_before_the_default() -> None:
    item = Content(texts=("t",), instruction="Mine")
    assert embed_text(TEMPLATE, item, (), "Theirs") == "[Mine.|t]"
    assert embed_text(TEMPLATE, Content(texts=("t",)), (), "Theirs") == "[Theirs.|t]"
    assert embed_text(TEMPLATE, Content(texts=("t",)), (), None) == f"[{EMBED_INSTRUCTION}|t]"


def test_an_absent_item_is_null_and_an_empty_text_is_not() -> None:
    assert embed_text(TEMPLATE, Content(), (), None).endswith("|NULL]")
    assert embed_text(TEMPLATE, Content(texts=("",)), (), None).endswith("|]")


def test_rerank_puts_query_and_document_as_the_reference_does() -> None:
    text = rerank_text(TEMPLATE, Content(texts=("q", "r")), Content(), (), (), "Judge")
    assert text.endswith("|<Instruct>: Judge<Query>:qr\n<Document>:NULL]")
