"""Other hosts' routes on the real engine: what they answer is what ours answer to the same question."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from tests import web
from tests.conftest import Pair, Server
from tests.engine.http.bad_foreign import DE, DR
from tests.parity import cases
from tests.system.test_http_parity import embed, post, url

pytestmark = pytest.mark.engine

DOCUMENTS = ["a car", {"text": "a red shape"}, {"image": url(cases.image(96, 64), "image/png")}]
TALK = [{"role": "system", "content": "Find it."}, {"role": "user", "content": "Über 東京 🎉"}]


def scores(server: Server, **body: Any) -> list[tuple[int, float]]:
    results = post(server, "/v1/rerank", documents=DOCUMENTS, **body)["results"]
    return [(each["index"], each["relevance_score"]) for each in results]


@pytest.mark.parametrize("parameters", [{}, {"dimension": 32, "instruct": "Find it."}])
def test_dashscope_embeds_as_we_do(server: Server, parameters: dict[str, Any]) -> None:
    film, pages = url(cases.clip(24), "video/mp4"), [url(cases.image(64, 48), "image/png")] * 2
    contents = [{"text": "a"}, {"image": pages[0]}, {"video": film}, {"multi_images": pages}]
    items = [{"text": "a"}, {"image": pages[0]}, {"video": film, "fps": 2}, {"image": pages}]
    names = {"dimension": "dimensions", "instruct": "instruction"}
    options = {names[name]: value for name, value in parameters.items()}
    answer = post(server, DE, input={"contents": contents}, parameters={**parameters, "fps": 2})
    got = [each["embedding"] for each in answer["output"]["embeddings"]]
    np.testing.assert_allclose(got, embed(server, items, **options), atol=1e-6)
    fused = post(
        server, DE, input={"contents": contents[:2]}, parameters={**parameters, "enable_fusion": True}
    )
    (row,) = fused["output"]["embeddings"]
    np.testing.assert_allclose(
        [row["embedding"]], embed(server, [{**items[0], **items[1]}], **options), atol=1e-6
    )


def test_dashscope_reranks_as_we_do(server: Server) -> None:
    asked = {"query": {"text": "red"}, "documents": DOCUMENTS}
    answer = post(server, DR, input=asked, parameters={"instruct": "Match it.", "top_n": 2})
    got = [(each["index"], each["relevance_score"]) for each in answer["output"]["results"]]
    expected = scores(server, query="red", instruction="Match it.", top_n=2)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_nvidia_ranks_as_we_do(server: Server) -> None:
    passages = [{"text": each} if isinstance(each, str) else each for each in DOCUMENTS]
    rankings = post(server, "/v1/ranking", query={"text": "red"}, passages=passages)["rankings"]
    got = [(each["index"], each["logit"]) for each in rankings]
    np.testing.assert_allclose(got, scores(server, query="red", raw_scores=True), atol=1e-5)


@pytest.mark.parametrize("path", ["/similarity", "/"])
def test_similarities_are_cosines(server: Server, path: str) -> None:
    texts = ["a red shape", "a red circle", "Über 東京 🎉"]
    got = post(server, path, inputs={"source_sentence": texts[0], "sentences": texts})
    rows = embed(server, texts)
    np.testing.assert_allclose(got, rows @ rows[0], atol=1e-6)


def test_azure_embeds_as_we_do(server: Server) -> None:
    items = [{"image": url(cases.image(64, 48), "image/png"), "text": "a"}]
    (row,) = post(server, "/images/embeddings?api-version=2024-05-01-preview", input=items)["data"]
    np.testing.assert_allclose([row["embedding"]], embed(server, items), atol=1e-6)


@pytest.mark.parametrize("special", [True, False])
def test_tokens_are_those_of_the_tokenizer(server: Server, pair: Pair, special: bool) -> None:
    texts = ["Über 東京 🎉", "a<|im_end|>\n b", ""]
    expected = AutoTokenizer.from_pretrained(pair.embedder)(texts, add_special_tokens=special)["input_ids"]
    for model in (None, server.embedder, server.reranker):
        found = post(server, "/tokenize", inputs=texts, add_special_tokens=special, model=model)
        assert [[each["id"] for each in tokens] for tokens in found] == expected
    for text, tokens in zip(texts, found, strict=True):
        assert all(each["special"] or each["text"] == text[each["start"] : each["stop"]] for each in tokens)
        assert {at for each in tokens for at in range(each["start"] or 0, each["stop"] or 0)} == set(
            range(len(text))
        )
    answer = post(server, "/tokenize", prompt=texts[0], add_special_tokens=special, return_token_strs=True)
    assert answer["tokens"] == expected[0]
    assert answer["count"] == len(answer["token_strs"]) == len(expected[0])


def test_a_conversation_has_as_many_tokens_as_its_embedding_costs(server: Server) -> None:
    answer = post(server, "/tokenize", messages=TALK)
    embedded = post(server, "/v1/embeddings", messages=TALK)
    assert answer["count"] == embedded["usage"]["prompt_tokens"]
    np.testing.assert_allclose(
        embed(server, [answer["tokens"]])[0], embedded["data"][0]["embedding"], atol=1e-6
    )


def test_a_conversation_of_a_query_has_its_instruction(server: Server) -> None:
    plain, query = (
        post(server, "/tokenize", messages=TALK[1:], model=server.embedder + end)["count"]
        for end in ("", ":query")
    )
    asked = post(server, "/v1/embeddings", messages=TALK[1:], input_type="query")
    assert query == asked["usage"]["prompt_tokens"] != plain


def test_a_model_is_found_by_what_the_command_line_called_it(server: Server, pair: Pair) -> None:
    listed = web.get(f"{server.url}/v1/models").json()["data"]
    for path, card in zip((pair.embedder, pair.reranker), listed, strict=True):
        assert web.get(f"{server.url}/v1/models/{path}").json() == {**card, "id": str(path)}
