"""The text side of a checkpoint: its tokenizer and its chat template, proven to be what prompts need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvl.engine import sentence_modules
from qvl.engine.checkpoint import Checkpoint
from qvl.engine.errors import CheckpointError
from qvl.engine.prompt import FRAME, IMAGE, PADS, Template, embed_text
from qvl.engine.protocol import Content, EmbedRequest, Token
from qvl.engine.tokens import PromptTokenizer, SpecialIds

_MEAN = 0.5
_SAMPLE = "Any text."


@dataclass(frozen=True, slots=True)
class TextSide:
    """What turns requests into token ids for one checkpoint."""

    template: Template
    tokenizer: PromptTokenizer
    yes: int
    no: int

    def split(self, request: EmbedRequest, special: bool | None) -> list[list[Token]]:
        """The tokens of each item's text, with or without the tokenizer's own; None: of its whole prompt."""
        found = []
        for item in request.input:
            if isinstance(item, Content):
                bare = "".join(item.texts)
                text = embed_text(self.template, item, (), request.instruction) if special is None else bare
                found.append(self.tokenizer.split(text, special is not False))
        return found


def load_text_side(checkpoint: Checkpoint) -> TextSide:
    """Loads the checkpoint's processor once (seconds) and keeps only the fast tokenizer."""
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(str(checkpoint.path), local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        raise CheckpointError(f"{checkpoint.path}: its processor does not load ({error})") from error
    means = [*processor.image_processor.image_mean, *processor.image_processor.image_std]
    if any(value != _MEAN for value in means):
        raise CheckpointError(f"{checkpoint.path}: its image mean and std are not {_MEAN}, which pixels need")
    slow = processor.tokenizer
    tokenizer = type(slow.backend_tokenizer).from_str(slow.backend_tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    special = SpecialIds(
        image=checkpoint.config.get("image_token_id", processor.image_token_id),
        video=checkpoint.config.get("video_token_id", processor.video_token_id),
        all=frozenset(slow.all_special_ids),
    )
    # transformers makes an empty one where its files are missing.
    known = [tokenizer.token_to_id(pad) for pad in PADS] == [special.image, special.video]
    if not known or tokenizer.decode(tokenizer.encode(_SAMPLE, add_special_tokens=False).ids) != _SAMPLE:
        raise CheckpointError(
            f"{checkpoint.path}: its tokenizer is not its model's; copy tokenizer.json and "
            "tokenizer_config.json from the base model"
        )
    reranker = checkpoint.role == "reranker"
    yes, no = (
        sentence_modules.tokens(checkpoint.path, checkpoint.config, slow.get_vocab()) if reranker else (0, 0)
    )
    return TextSide(
        template=_template(processor, checkpoint.path),
        tokenizer=PromptTokenizer(tokenizer, special, max_length=checkpoint.max_length, reranker=reranker),
        yes=yes,
        no=no,
    )


def _template(processor: Any, path: Path) -> Template:
    """Cut the chat template at two markers, then prove on a conversation that the pieces rebuild it."""
    from jinja2 import TemplateError

    def render(system: str, user: list[dict[str, str]]) -> str:
        talk = [
            {"role": "system", "content": [{"type": "text", "text": system}]},
            {"role": "user", "content": user},
        ]
        try:
            return str(processor.apply_chat_template(talk, tokenize=False, add_generation_prompt=True))
        except (TemplateError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path}: its chat template fails ({error}); copy chat_template.jinja from the base model"
            ) from error

    head, _, rest = render("\u27e6system\u27e7", [{"type": "text", "text": "\u27e6user\u27e7"}]).partition(
        "\u27e6system\u27e7"
    )
    middle, _, tail = rest.partition("\u27e6user\u27e7")
    template = Template(head, middle, tail)
    mixed = [{"type": "video", "video": "v"}, {"type": "image", "image": "i"}]
    mixed += [{"type": "text", "text": text} for text in (" a\n", "", "\n<Document>:", "NULL ")]
    expected = template.render(" s. ", f"{FRAME}{IMAGE} a\n\n<Document>:NULL ")
    if render(" s. ", mixed) != expected:
        raise CheckpointError(f"{path}: its chat template is not Qwen3-VL's, so prompts cannot be exact")
    return template
