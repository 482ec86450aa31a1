"""The tiny pair's tokenizer: Qwen's pipeline and special tokens, a vocabulary trained on the text below."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.processors import PostProcessor

MERGED = 700
"""Bytes and merges, before the special tokens."""

WHOLE = ("yes", "no", "system", "user", "assistant")
"""Single entries of the vocabulary, as in the published one: the scores and the template need them."""

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Matched whole in any text, and flagged special: truncation in the reranker keeps every one of them."""

ADDED = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)
"""Matched whole too, but not flagged special: truncation treats them as words."""

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' or 'image' in part or 'image_url' in part -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part.type == 'video' or 'video' in part -%}
{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- elif 'text' in part -%}
{{- part.text -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

TEXT = """\
system user assistant yes no
Represent the user's input.
Judge whether the Document meets the requirements based on the Query and the Instruct provided.
Note that the answer can only be "yes" or "no".
<Instruct>: Given a search query, retrieve relevant candidates that answer the query.
<Query>: a red circle on a white page
<Document>: The picture shows a blue square and a green triangle beside the title of an old book.
NULL <0.5 seconds> <1.5 seconds> <12.3 seconds>
yes no yes no yes no
The quick brown fox jumps over the lazy dog, and nobody remembers what the dog had done to be called lazy.
A page of text has a heading, a few lines, a table of numbers and a small drawing in the corner.
Retrieve the images, documents or videos that are relevant to this question; say no when there are none.
In the video a yellow ball moves from the left to the right, then it comes back along the same way.
Invoices list items with their prices: paper 12.50, pencils 3.20, total 15.70 before tax, due within 30 days.
Search engines first recall many candidates by their vectors, then rerank the best of them one by one.
Le chat dort sur la chaise près de la fenêtre ; il rêve d'un été sans pluie.
Der Zug fährt um sieben Uhr ab, und die Straßen sind noch leer.
El perro corre por la playa mientras el sol se pone sobre el mar.
Съешь же ещё этих мягких французских булок, да выпей чаю.
検索システムは画像と文書を同じ空間に写す。 机器学习模型可以理解图片和文字。 이 그림에는 빨간 원이 있다.
"""


def train_tokenizer(*, append_end: bool, text: str = TEXT, merged: int = MERGED) -> Tokenizer:
    """NFC, Qwen's splits, byte-level BPE; with `append_end`, <|endoftext|> after each text.

    The trainer merges the most frequent pairs first, so the repeated words become whole.
    """
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        trainers,
    )

    from qvl.engine.bpe import WORDS

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(WORDS), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=merged, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*text.splitlines(), *WHOLE * 50], trainer)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in ADDED])
    if append_end:
        tokenizer.post_processor = end_token(tokenizer)
    return tokenizer


def end_token(tokenizer: Tokenizer) -> PostProcessor:
    from tokenizers import processors

    end = tokenizer.encode("<|endoftext|>").ids[0]
    template = processors.TemplateProcessing(
        single="$A <|endoftext|>",
        pair="$A $B:1 <|endoftext|>:1",
        special_tokens=[("<|endoftext|>", end)],
    )
    return processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
