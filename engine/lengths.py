"""How much text may stand in a request, counted before any of it is read."""

from __future__ import annotations

from qvl.engine.errors import TooLarge
from qvl.engine.protocol import Content, RerankRequest

MOST_CHARACTERS = 128 << 20
"""Of all prompts of one request: an instruction stands in each of them, a query in each pair."""
MOST_ITEM_CHARACTERS = 4 << 20
"""Of one item, its instruction counted: to tokenise them takes 280 bytes each."""
_AROUND = 350
"""Template and default instruction of a prompt."""


def length(item: Content, instruction: str | None) -> int:
    """Characters of its texts and of its instruction, or else of `instruction`."""
    return sum(map(len, item.texts)) + len(item.instruction or instruction or "")


def weight(item: Content, instruction: str | None) -> int:
    """Of its prompt; of a text that is not ASCII, which takes longer to read, a character counts as four."""
    texts = (*item.texts, item.instruction or instruction or "")
    return _AROUND + sum([len(text) if text.isascii() else 4 * len(text) for text in texts])


def of_pairs(request: RerankRequest) -> int:
    """Of all its prompts."""
    before = len(request.documents) * length(request.query, request.instruction)
    return before + sum(length(each, None) for each in request.documents)


def check(characters: int) -> None:
    """What a small body can grow to. Raises TooLarge."""
    if characters > MOST_CHARACTERS:
        raise TooLarge(
            f"the prompts of this request have {characters:,} characters, its instruction and query counted "
            f"in each; at most {MOST_CHARACTERS:,}: shorten them, or send fewer items at once",
            code="prompts_too_large",
        )


def too_large(item: Content, instruction: str | None) -> TooLarge | None:
    if (characters := length(item, instruction)) <= MOST_ITEM_CHARACTERS:
        return None
    return TooLarge(
        f"the text of this item has {characters:,} characters, its instruction counted; at most "
        f"{MOST_ITEM_CHARACTERS:,}, and the model reads only the beginning: send less of it",
        param=item.where,
        code="text_too_large",
    )
