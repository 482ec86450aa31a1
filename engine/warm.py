"""What a replica asks its own models before anybody else does.

The first answers pay for kernels and buffers, and must not be a user's. On a GPU they are of steps as large
as they come: from then on an engine's process holds what it will ever hold. One that grew later would do so
while the next replica on its card loads, and vLLM takes all that the card loses meanwhile for that one's own.
"""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import Sequence

from PIL import Image

from qvl.engine.config import TOKEN_PIXELS, EngineConfig
from qvl.engine.errors import NotStarted, Unavailable
from qvl.engine.family import STEP_TOKENS
from qvl.engine.llm import LLM
from qvl.engine.prepare import Preparer, Ready
from qvl.engine.protocol import Content, EmbedRequest, RerankRequest

TEXT = Content(texts=("warm up",))


def full_steps(config: EngineConfig) -> tuple[Content, ...]:
    """Twice a step's tokens of pictures: the first of them are taken before all have come."""
    side = math.isqrt(config.media.max_pixels // TOKEN_PIXELS)  # in tokens, of a largest square
    count = 2 * (config.max_batched_tokens or STEP_TOKENS) // side**2 + 1
    return (
        TEXT,
        *(Content(images=(_picture(i, side),)) for i in range(count if config.limits.images else 0)),
    )


async def warm_up(models: Sequence[LLM], preparer: Preparer, items: tuple[Content, ...]) -> None:
    """Each model answers for all that it can read. Raises NotStarted where one dies or hangs over it."""
    for model in models:
        death = asyncio.ensure_future(model.died())
        answering = asyncio.ensure_future(_answer(model, preparer, items))
        try:
            await asyncio.wait((answering, death), return_when=asyncio.FIRST_COMPLETED)
            if not death.done():
                answering.result()
                continue
            raise NotStarted(f"{model.checkpoint.name}: {death.result()}, over its first requests")
        except Unavailable as error:
            if error.code != "engine_dead":  # of the decoding processes, say
                raise
            raise NotStarted(f"{model.checkpoint.name}: {await death}, over its first requests") from error
        finally:
            answering.cancel()
            death.cancel()


async def _answer(model: LLM, preparer: Preparer, items: tuple[Content, ...]) -> None:
    if model.checkpoint.role == "embedder":
        batch = await preparer.embed(EmbedRequest(input=items, on_error="skip"), model.text)
    else:
        asked = RerankRequest(query=TEXT, documents=items, on_error="skip")
        batch = await preparer.rerank(asked, model.text)
    await model.run([each for each in batch if isinstance(each, Ready)])


def _picture(number: int, side: int) -> bytes:
    """PNG; none is like another, or they would be computed once."""
    file = io.BytesIO()
    Image.new("RGB", (32 * side, 32 * side), (number % 256, number // 256, 0)).save(file, "png")
    return file.getvalue()
