"""Arrivals for the simulation of scaling, and for the real run that it is held against: seeded, in tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LARGEST = 400_000
"""Tokens of one request at most; about a hundred videos."""
_SMALLEST = 33
"""The template's, and one of text."""
_KINDS = (
    # share of requests, median tokens, spread (sigma of the logarithm)
    (0.60, 60, 0.6),  # one text
    (0.25, 6_000, 1.0),  # a batch of passages
    (0.10, 25_000, 0.9),  # a rerank of a hundred documents, a document of pages
    (0.05, 60_000, 1.2),  # videos
)
_HEAVY = ((1.0, 60_000, 0.9),)
_OFF_SECONDS, _ON_SECONDS = 300.0, 90.0


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order: seconds from the start, and tokens of each."""

    arrivals: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]
    seconds: float


def bursty(
    seed: int, seconds: float, quiet: float, burst: float, *, sizes: float = 1.0, pauses: float = 1.0
) -> Trace:
    """`quiet` tokens a second all the time; `burst` more in bursts of some 90 s with some 300 between.

    Every other burst has requests of the usual sizes, the rest only large ones. `sizes` and `pauses` shrink
    them, for a run in real time.
    """
    random = np.random.default_rng(seed)
    streams = [_stream(random, 0.0, seconds, quiet, _KINDS, sizes)]
    start = random.exponential(_OFF_SECONDS * pauses)
    heavy = True
    while start < seconds:
        end = min(seconds, start + random.uniform(0.5, 1.5) * _ON_SECONDS * pauses)
        streams.append(_stream(random, start, end, burst, _HEAVY if heavy else _KINDS, sizes))
        start = end + random.exponential(_OFF_SECONDS * pauses)
        heavy = not heavy
    arrivals = np.concatenate([stream[0] for stream in streams])
    order = np.argsort(arrivals, kind="stable")
    return Trace(arrivals[order], np.concatenate([stream[1] for stream in streams])[order], seconds)


def _stream(
    random: np.random.Generator,
    start: float,
    end: float,
    rate: float,
    kinds: tuple[tuple[float, int, float], ...],
    scale: float,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Poisson arrivals that bring `rate` tokens a second on average."""
    shares, medians, sigmas = (np.array(each) for each in zip(*kinds, strict=True))
    mean = float((shares * scale * medians * np.exp(sigmas**2 / 2)).sum())
    count = random.poisson(rate * (end - start) / mean)
    kind = random.choice(len(kinds), size=count, p=shares)
    drawn = scale * medians[kind] * np.exp(sigmas[kind] * random.standard_normal(count))
    return random.uniform(start, end, count), np.clip(drawn, _SMALLEST, scale * LARGEST).astype(np.int64)
