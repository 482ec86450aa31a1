"""Whether a request may come in, decided before any of it is decoded: 429 early rather than late answers.

Cost is estimated tokens. What is in progress is bounded; a request that finds nothing in progress always
comes in, however large, so that nothing can be refused for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from qvl.engine.config import TOKEN_PIXELS, MediaConfig
from qvl.engine.errors import Overloaded
from qvl.engine.picture_size import image_size
from qvl.engine.protocol import Content, EmbedRequest, Priority, RerankRequest, Source, Tokens

BYTES_PER_TOKEN = 4
"""Of UTF-8 text; between English (4 to 5) and Chinese (about 3)."""
TEMPLATE_TOKENS = 32
TOKEN_SIDE = 32
"""Pixels a side of what becomes one token."""
VIDEO_TOKENS = 4096
MOST_HEADERS = 512
"""Of images that are read for an estimate; where there are more, these stand for the others."""
_SMOOTHING = 0.2
"""Weight of the newest request in the running rate."""
_MOST_SECONDS = 30.0
_BACK_SECONDS = 2.0
"""After its Retry-After, for a refused caller to come back."""
BATCH_FILL = 0.5
"""Share of the limit above which batch requests are refused."""

CALLER: ContextVar[str] = ContextVar("caller", default="-")
"""Name of the API key that the request at hand came with; `-`: with none."""
_MODELS_OWN = MediaConfig()


def cost(
    asked: Content | EmbedRequest | RerankRequest | tuple[RerankRequest, ...],
    media: MediaConfig = _MODELS_OWN,
) -> int:
    """Estimated tokens of an item, of a request, or of pairs.

    A request's query counts once: its documents share it. Pairs share nothing.
    """
    if isinstance(asked, Content):
        return _of([asked], media)
    if isinstance(asked, EmbedRequest):
        ids = sum(len(item.ids) for item in asked.input if isinstance(item, Tokens))
        items = [item for item in asked.input if isinstance(item, Content)]
        lacking = sum(not item.instruction for item in items) if asked.instruction else 0
        return ids + _of(items, media) + lacking * _text_tokens(asked.instruction)
    pairs = (asked,) if isinstance(asked, RerankRequest) else asked
    instructions = sum(_text_tokens(each.instruction) for each in pairs if not each.query.instruction)
    return instructions + _of([item for each in pairs for item in (each.query, *each.documents)], media)


def _of(items: Sequence[Content], media: MediaConfig) -> int:
    images = [image for item in items for image in item.images]
    read = images[:: max(1, -(-len(images) // MOST_HEADERS))]
    pictures = sum(_image_tokens(each, media) for each in read) * len(images) // max(1, len(read))
    return sum(map(_other_tokens, items)) + pictures


def _other_tokens(item: Content) -> int:
    """All but its images'."""
    text = sum(map(_utf8_bytes, item.texts)) + _utf8_bytes(item.instruction or "")
    return TEMPLATE_TOKENS + text // BYTES_PER_TOKEN + VIDEO_TOKENS * len(item.videos)


def _text_tokens(text: str | None) -> int:
    return _utf8_bytes(text or "") // BYTES_PER_TOKEN


def _utf8_bytes(text: str) -> int:
    # Python knows of a string whether it is ASCII; JSON may hold a lone surrogate.
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def _image_tokens(source: Source, media: MediaConfig) -> int:
    """One whose size is not known before it is fetched has the most."""
    least, most = media.min_pixels // TOKEN_PIXELS, media.max_pixels // TOKEN_PIXELS
    size = image_size(source)
    if size is None:
        return most
    across, down = (max(1, round(side / TOKEN_SIDE)) for side in size)
    return min(most, max(least, across * down))


class Admission:
    """Belongs to one event loop.

    While several callers have work here, or were refused lately, none may begin more than its equal share of
    the limit. One that holds nothing needs room for no more than that share, so that it gets in too.
    """

    def __init__(self, limit: int, tell: Callable[[float], None] = lambda held: None) -> None:
        """`tell` hears of `held` whenever it changes."""
        self._limit = limit
        self._tell = tell
        self._held = 0
        self._rate = 0.0
        self._by_caller: dict[str, int] = {}
        self._refused: dict[str, float] = {}
        """Until when a refused caller is expected back."""

    @property
    def held(self) -> int:
        """Estimated tokens in progress."""
        return self._held

    @contextmanager
    def admit(self, tokens: int, priority: Priority = "interactive") -> Iterator[None]:
        """Counts a request while it is in progress. Raises Overloaded, with when to try again."""
        caller = CALLER.get()
        self._check(caller, tokens, priority)
        self._refused.pop(caller, None)
        self._hold(tokens)
        self._by_caller[caller] = self._by_caller.get(caller, 0) + tokens
        start = time.monotonic()
        try:
            yield
        finally:
            self._learn(self._held / max(time.monotonic() - start, 1e-3))
            self._hold(-tokens)
            # Of requests that cost nothing the first to leave has taken the entry away.
            if left := self._by_caller.pop(caller, 0) - tokens:
                self._by_caller[caller] = left

    def _hold(self, tokens: int) -> None:
        self._held += tokens
        self._tell(self._held)

    def _check(self, caller: str, tokens: int, priority: Priority) -> None:
        if not self._held:
            return
        own, share = self._by_caller.get(caller, 0), self._share(caller)
        batch = priority == "batch"
        limit = int(self._limit * BATCH_FILL) if batch else self._limit
        beyond = own + tokens - share if own else 0
        over = beyond if beyond > 0 else self._held + min(tokens, share) - limit
        if over <= 0:
            return
        why = f"the limit {'of batch requests ' if batch else ''}is {limit}"
        if beyond > 0 and share < self._limit:
            why = f"its key has {own} of them, and its share of the limit of {self._limit} is {share}"
        seconds = self._wait(over)
        self._refused[caller] = time.monotonic() + seconds + _BACK_SECONDS
        raise Overloaded(
            f"server busy: about {self._held} tokens are in progress, this request needs about {tokens}, "
            f"{why} (--queue-tokens); ask again after Retry-After",
            retry_after=seconds,
        )

    def _share(self, caller: str) -> int:
        """Of the limit, by the number of callers that want some of it."""
        if self._refused:
            now = time.monotonic()
            self._refused = {name: until for name, until in self._refused.items() if until > now}
        return self._limit // len({caller, *self._by_caller, *self._refused})

    def _wait(self, over: int) -> float:
        """Seconds until there is room for as many tokens more, at the present rate; at least 1."""
        return min(_MOST_SECONDS, max(1.0, over / self._rate)) if self._rate else 1.0

    def _learn(self, rate: float) -> None:
        """Requests share the model, so what was in progress over how long this one took is its rate."""
        self._rate = rate if not self._rate else (1 - _SMOOTHING) * self._rate + _SMOOTHING * rate
