"""A request's items at the engine: in order, each with its own answer, none left behind."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from qvl.engine.answers import AnswerCache
from qvl.engine.checkpoint import Checkpoint
from qvl.engine.errors import NotStarted, QvlError, TooLarge, Unavailable
from qvl.engine.llm import LLM
from qvl.engine.media import Visual
from qvl.engine.media.arena import Arena
from qvl.engine.media.block import HEADER
from qvl.engine.prepare import Ready
from qvl.engine.prompt import Prompt, Span
from tests.engine.conftest import turns
from tests.engine.fake_client import FakeClient, dead, output
from tests.parity.conftest import vllm_warnings

BLOCK = 32 * 32 * 3 + HEADER
PAD = 90


def text(number: int) -> Ready:
    return Ready(Prompt([number]), ())


def image(number: int, tokens: int = 1) -> Ready:
    pixels = np.full((1, 32, 32 * tokens, 3), number, np.uint8)
    return Ready(
        Prompt([PAD] * tokens, (Span(0, tokens, PAD),)), (Visual("image", pixels, (), f"image-{number}"),)
    )


def with_model(work: Callable[[LLM, FakeClient], Awaitable[None]], blocks: int = 2) -> None:
    """`blocks`: images of one token that its shared pixels have room for."""

    async def run() -> None:
        client = FakeClient(most_embeddings=2)
        engine = SimpleNamespace(
            engine_core=client,
            input_processor=client,
            model_config=SimpleNamespace(dtype="torch.float32"),
            errored=False,
            is_sleeping=lambda: asyncio.sleep(0, False),
            shutdown=lambda timeout: None,
            # Of an engine on several devices, which ends its processes itself.
            vllm_config=SimpleNamespace(parallel_config=SimpleNamespace(world_size=2)),
        )
        checkpoint = Checkpoint(Path("m"), ("m",), "embedder", {})
        arena, answers = Arena(blocks * BLOCK), AnswerCache(1 << 20, lambda _: None)
        model = LLM(checkpoint, None, engine, arena, answers, (), 0)  # type: ignore[arg-type]  # no text here
        await model.open()
        try:
            await work(model, client)
        finally:
            await model.stop()
            arena.close()

    with vllm_warnings():
        asyncio.run(asyncio.wait_for(run(), 60))


async def asked(client: FakeClient, count: int) -> None:
    while len(client.asked) < count:  # noqa: ASYNC110 - it is told of nothing
        await asyncio.sleep(0)


async def answered(client: FakeClient, count: int) -> None:
    """The first `count` requests, each with its number, the last first."""
    await asked(client, count)
    for number, request in reversed(list(enumerate(client.asked))):
        client.outputs.put_nowait([output(request.request_id, torch.tensor([[float(number)]]))])


def test_rows_are_in_the_order_of_the_items() -> None:
    async def work(model: LLM, client: FakeClient) -> None:
        def inputs() -> list[Ready]:
            return [text(1), image(2), text(3), image(4, tokens=3), image(5)]

        answering = asyncio.ensure_future(answered(client, 4))
        rows = await model.run(inputs())
        await answering
        assert [each.prompt_token_ids[0] for each in client.asked] == [1, PAD, 3, PAD]
        assert isinstance(rows[3], TooLarge)
        assert [float(row[0]) for row in rows if isinstance(row, np.ndarray)] == [0, 1, 2, 3]
        again = await model.run(inputs())  # all are known
        assert [float(row[0]) for row in again if isinstance(row, np.ndarray)] == [0, 1, 2, 3]
        assert len(client.asked) == 4

    with_model(work, blocks=8)


def test_pixels_are_let_go_as_they_are_answered() -> None:
    """More images than there is room for, all of one request."""

    async def work(model: LLM, client: FakeClient) -> None:
        running = asyncio.ensure_future(model.run([image(number) for number in range(6)]))
        for number in range(6):
            await asked(client, number + 1)
            assert len(client.asked) <= number + 2
            client.outputs.put_nowait([output(str(number), torch.ones(1))])
        assert len(await running) == 6

    with_model(work)


def test_pixels_that_are_sent_count_as_waited_for_no_more() -> None:
    """Nor do those of an answered one, while the rest of its request runs."""

    async def work(model: LLM, client: FakeClient) -> None:
        inputs = [image(1), image(2)]
        pixels = [weakref.ref(each.visuals[0]) for each in inputs]
        running = asyncio.ensure_future(model.run(inputs))
        await asked(client, 2)
        while any(each() for each in pixels):  # noqa: ASYNC110 - a thread that brought them may hold them yet
            await asyncio.sleep(0.01)
        running.cancel()

    with_model(work)


def test_one_that_fails_ends_the_others_in_one_message() -> None:
    async def work(model: LLM, client: FakeClient) -> None:
        running = asyncio.ensure_future(model.run([text(number) for number in range(4)]))
        await asked(client, 4)
        client.outputs.put_nowait([output("0", torch.ones(1)), output("1", None, "error")])
        with pytest.raises(QvlError, match="gave its input up"):
            await running
        assert client.aborted == [["2", "3"]]

    with_model(work)


@pytest.mark.parametrize("room", [2, 8])
def test_pixels_of_who_leaves_stay_until_no_step_reads_them(room: int) -> None:
    """With little room it leaves while it waits for more."""

    async def work(model: LLM, client: FakeClient) -> None:
        client.between_steps.clear()
        running = asyncio.ensure_future(model.run([image(number) for number in range(4)]))
        await asked(client, sent := min(room, 4))
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
        assert client.aborted == [[str(number) for number in range(sent)]]
        others = asyncio.ensure_future(model.run([image(number) for number in range(10, 10 + room)]))
        await asked(client, room)
        await asyncio.sleep(0.05)
        assert len(client.asked) == room  # the engine may be reading the others' still
        client.between_steps.set()
        await asyncio.wait_for(asked(client, sent + room), 60)
        others.cancel()

    with_model(work, blocks=room)


def test_a_number_that_is_none_is_its_items_own_error() -> None:
    async def work(model: LLM, client: FakeClient) -> None:
        running = asyncio.ensure_future(model.run([text(1), text(2)]))
        await asked(client, 2)
        client.outputs.put_nowait([output("0", torch.tensor([np.nan])), output("1", torch.ones(1))])
        bad, good = await running
        assert isinstance(bad, QvlError)
        assert (bad.code, good) == ("not_finite", np.ones(1, np.float32))

    with_model(work)


@pytest.mark.parametrize("error", [dead, lambda: ValueError("not one of its messages")])
def test_a_dead_engine_is_a_503_for_those_who_wait_for_room_too(error: Callable[[], Exception]) -> None:
    async def work(model: LLM, client: FakeClient) -> None:
        running = [asyncio.ensure_future(model.run([image(2 * i), image(2 * i + 1)])) for i in range(6)]
        await asked(client, 2)
        client.outputs.put_nowait(error())
        for each in running:
            with pytest.raises(Unavailable) as failure:
                await asyncio.wait_for(each, 60)
            assert (failure.value.status, failure.value.code) == (503, "engine_dead")
        assert await asyncio.wait_for(model.died(), 60) == "the engine process of m has died"

    with_model(work)


def test_a_stopped_engine_is_a_503_for_those_who_wait_for_room_too() -> None:
    async def work(model: LLM, client: FakeClient) -> None:
        running = [asyncio.ensure_future(model.run([image(2 * i), image(2 * i + 1)])) for i in range(6)]
        await asked(client, 2)
        await model.stop()
        for each in running:
            with pytest.raises(Unavailable):
                await asyncio.wait_for(each, 60)

    with_model(work)


def test_what_was_answered_before_it_was_given_up_is_kept() -> None:
    async def work(model: LLM, client: FakeClient) -> None:
        inputs = [text(number) for number in range(3)]
        running = asyncio.ensure_future(model.run(inputs))
        await asked(client, 3)
        client.outputs.put_nowait([output("1", torch.ones(1))])
        await turns()
        running.cancel()
        await asyncio.wait([running])
        assert client.aborted == [["0", "2"]]
        again = asyncio.ensure_future(model.run(inputs))
        await asked(client, 5)
        assert [each.prompt_token_ids for each in client.asked[3:]] == [[0], [2]]
        again.cancel()

    with_model(work)


def test_an_engine_that_dies_before_it_is_open_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(model: LLM, client: FakeClient) -> None:
        client.outputs.put_nowait(dead())
        monkeypatch.setattr(client, "get_supported_tasks_async", lambda: asyncio.sleep(3600))
        with pytest.raises(NotStarted, match="m: the engine did not start: the model's engine process"):
            await model.open()

    with_model(work)
