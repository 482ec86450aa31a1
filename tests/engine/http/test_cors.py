"""Pages of other origins: none may read an answer but those that were named."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qvl.engine.errors import ConfigError
from tests.engine.http.conftest import Client, settings

E = "/v1/embeddings"
GOOD = {"input": "a"}


@pytest.mark.parametrize("key", ["k", "wrong"])
def test_no_page_of_another_origin_may_read_an_answer(make: Callable[..., Client], key: str) -> None:
    client = make(api_key=("k",))
    headers = {"origin": "https://elsewhere.example", "authorization": f"Bearer {key}"}
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    preflight = client.options(E, headers={**headers, **asks})
    assert preflight.status_code == (405 if key == "k" else 401)
    for answer in (preflight, client.post(E, json=GOOD, headers=headers), client.get("/health/live")):
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_pages_of_a_named_origin_may_read_every_answer(make: Callable[..., Client]) -> None:
    named, other = "https://app.example", "https://elsewhere.example"
    client = make(api_key=("k",), cors_origin=(named,))
    headers = "authorization,content-type,x-api-key,x-stainless-lang"  # the last as OpenAI's SDK
    asks = {"access-control-request-method": "POST", "access-control-request-headers": headers}
    for origin, wanted in ((named, named), (other, None)):
        preflight = client.options(E, headers={"origin": origin, **asks})
        assert preflight.is_success == (wanted is not None)
        answers = [
            client.post(E, json=GOOD, headers={"origin": origin, "authorization": f"Bearer {key}"})
            for key in ("k", "wrong")
        ]
        assert [each.status_code for each in answers] == [200, 401]
        for answer in (preflight, *answers):
            assert answer.headers.get("access-control-allow-origin") == wanted
            assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("origin", ["app.example", "https://app.example/", "https://App.example", ""])
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(ConfigError, match="--cors-origin is SCHEME"):
        settings(cors_origin=(origin,))
