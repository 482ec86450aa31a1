"""Where the aims stand: of the CPU set, which `make bench` is there to answer, of the serving set, of a 2B on
an H100.

"Stock" is each stock contestant of the run; an aim is met when it is met against all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.compare import Group, Line, line

FLAT = 1.25
"""The most that an item may cost with 64 requests in flight, over its cost with one."""
PHOTO_SECONDS = 0.020


@dataclass(frozen=True, slots=True)
class Rate:
    """Of a closed loop on the GPU: at least so many items, or tokens, a second."""

    workload: str
    bf16: float
    fp8: float | None = None
    """None: as in bf16."""
    tokens: bool = False


RATES = (
    Rate("short", 3_000),
    Rate("short-64", 5_000),
    Rate("passages", 180_000, 270_000, tokens=True),
    Rate("photos", 65, 90),
    Rate("rerank-text", 650, 900),
    Rate("rerank-image-query", 600),
)


@dataclass(frozen=True, slots=True)
class Aim:
    text: str
    met: bool | None
    """None: not measured, or not to be told from what was."""
    found: str


def cpu_aims(groups: Iterable[Group]) -> list[Aim]:
    lines = [each for group in groups if group.profile == "cpu" for each in group.lines]
    return list(_aims(lines)) if lines else []


def serving_aims(groups: Iterable[Group]) -> list[Aim]:
    """Of a model of one layer: the CPU set's rates, where the engine's arithmetic does not hide them."""
    lines = [each for group in groups if group.profile == "serving" for each in group.lines]
    return list(_rates(lines)) if lines else []


def gpu_aims(groups: Iterable[Group]) -> list[Aim]:
    """Of the 2B models, whichever GPU it was."""
    aims: list[Aim] = []
    for group in groups:
        if group.profile == "gpu" and "2b" in group.title.lower():
            closed = [each for each in group.lines if each.own.mode == "closed"]
            aims += [aim for rate in RATES if (aim := _reached(closed, rate))]
            if closed:
                aims.append(_faster(closed, 1.0, "items per s: never below stock"))
                aims.append(_as_quick(closed))
    return aims


def _reached(lines: Sequence[Line], rate: Rate) -> Aim | None:
    """At the load that gave most."""
    measured = [each.own for each in line(lines, rate.workload) if not each.own.void]
    if not measured:
        return None
    at = max(measured, key=lambda row: row.items_per_s)
    least = rate.fp8 if at.dtype.startswith("fp8") and rate.fp8 else rate.bf16
    found = (at.tokens_per_s or 0.0) if rate.tokens else at.items_per_s
    unit = "tokens" if rate.tokens else "items"
    return Aim(f"{rate.workload}, {at.dtype}: ≥ {least:,.0f} {unit}/s", found >= least, f"{found:,.0f}")


def _as_quick(lines: Sequence[Line]) -> Aim:
    ratios = {
        f"{each.title} against {name}": each.own.p50_ms / other.p50_ms
        for each in lines
        for name, other in each.others.items()
        if name in _stock(each) and each.own.p50_ms and other.p50_ms and not (other.void or each.own.void)
    }
    text = "p50 no worse than stock's at equal load"
    if not ratios:
        return Aim(text, None, "not measured")
    worst = max(ratios, key=lambda where: ratios[where])
    return Aim(text, ratios[worst] <= 1.0, f"at worst {ratios[worst]:.2f} × on {worst}")


def _aims(lines: Sequence[Line]) -> Iterator[Aim]:
    yield _cheaper(lines, "photos", 1 / 3, "≤ 1/3 of stock on unique 1024² JPEGs")
    yield _photo(lines)
    yield _cheaper(lines, "rerank-image-query", 1 / 20, "≤ 1/20 of stock reranking 100 by an image")
    yield _cheaper(lines, "short", 1 / 2, "≤ 1/2 of stock on short text")
    yield from _rates(lines)
    for workload in ("short", "small"):
        yield _flat(lines, workload)


def _rates(lines: Sequence[Line]) -> Iterator[Aim]:
    closed = [each for each in lines if each.own.mode == "closed"]
    yield _faster(closed, 1.0, "items per s: never below stock")
    yield _faster(line(lines, "short"), 1.3, "items per s: ≥ 1.3 × stock on short text")
    yield _faster(line(lines, "small"), 1.3, "items per s: ≥ 1.3 × stock on 224² images")


def _stock(each: Line) -> list[str]:
    return [name for name in each.others if name.startswith("vllm")]


def _cheaper(lines: Sequence[Line], workload: str, most: float, text: str) -> Aim:
    """At the highest load measured, where the clock ticks of CPU time matter least."""
    text = f"API side's CPU s per item {text}"
    measured = line(lines, workload)
    if not measured:
        return Aim(text, None, "not measured")
    at = max(measured, key=lambda each: each.own.concurrency)
    ratios = {name: ratio for name in _stock(at) if (ratio := at.cheaper(name)) is not None}
    if not ratios:
        return Aim(text, None, "not measured")
    found = ", ".join(f"{ratio:.2f} × {name}" for name, ratio in ratios.items())
    return Aim(text, max(ratios.values()) <= most, found)


def _photo(lines: Sequence[Line]) -> Aim:
    text = f"API side's CPU s per item ≤ {1000 * PHOTO_SECONDS:.0f} ms on unique 1024² JPEGs"
    costs = [each.own.cpu_s_per_item for each in line(lines, "photos") if each.own.cpu_s_per_item is not None]
    if not costs:
        return Aim(text, None, "not measured")
    return Aim(text, max(costs) <= PHOTO_SECONDS, f"{1000 * max(costs):.1f} ms")


def _faster(lines: Sequence[Line], least: float, text: str) -> Aim:
    """Open where the turns of two overlap: the machine's own pace decides there."""
    found = [
        (ratio, each.told_apart(name, least), f"{ratio:.2f} on {each.title} against {name}")
        for each in lines
        for name in _stock(each)
        if (ratio := each.faster(name)) is not None
    ]
    if not found:
        return Aim(text, None, "not measured")
    low = [where for ratio, apart, where in found if apart and ratio < least]
    if low:
        return Aim(text, False, "; ".join(low))
    near = [where for _, apart, where in found if not apart]
    if near:
        return Aim(text, None, f"turns overlap: {'; '.join(near)}")
    return Aim(text, True, f"lowest {min(found)[2]}")


def _flat(lines: Sequence[Line], workload: str) -> Aim:
    text = f"API side's CPU s per item flat from 1 to 64 in flight, {workload}"
    one, many = line(lines, workload, 1), line(lines, workload, 64)
    if not (one and many and one[0].own.cpu_s_per_item and many[0].own.cpu_s_per_item):
        return Aim(text, None, "not measured")
    ratio = many[0].own.cpu_s_per_item / one[0].own.cpu_s_per_item
    return Aim(text, ratio <= FLAT, f"{ratio:.2f} ×")
