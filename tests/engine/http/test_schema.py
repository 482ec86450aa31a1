"""Requests made from `/openapi.json`: every answer is one that the document promises."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from qvl.engine.api import openapi
from tests.engine.http.conftest import on_a_port
from tests.engine.http.fake import FakeEngine

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


SCHEMA = schemathesis.openapi.from_dict(openapi.document("0", keyed=False))
OPERATIONS = {each.ok().label: each.ok() for each in SCHEMA.get_all_operations()}
CASES = [
    (label, mode) for label in OPERATIONS for mode in GenerationMode if mode.is_positive or "POST" in label
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    index = tmp_path_factory.mktemp("search") / "index"
    with on_a_port(FakeEngine(), index=str(index)) as address:
        yield address


@pytest.mark.parametrize(("label", "mode"), CASES, ids=str)
def test_answers_are_as_documented(url: str, label: str, mode: GenerationMode) -> None:
    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode))
    def run(case: schemathesis.Case) -> None:
        case.call_and_validate(base_url=url, checks=CHECKS, timeout=120)

    run()
