"""A condition on the metadata as Qdrant's."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from qdrant_client import models

from qvl.engine.errors import BadRequest
from qvl.engine.protocol import Condition, Scalar

BOUNDS = ("gt", "gte", "lt", "lte")


def fits(condition: Condition) -> models.Condition:
    """Raises BadRequest for texts that Qdrant puts in no order."""
    key = f"metadata.{condition.key}"
    if condition.values:
        return models.Filter(should=[_equals(key, value) for value in condition.values])
    bounds: dict[str, Any] = {name: getattr(condition, name) for name in BOUNDS}
    if not any(isinstance(bound, str) for bound in bounds.values()):
        return models.FieldCondition(key=key, range=models.Range(**bounds))
    try:
        times = {
            name: None if bound is None else datetime.fromisoformat(bound) for name, bound in bounds.items()
        }
    except ValueError as error:
        raise BadRequest(
            f"filter.{condition.key}: {error}; Qdrant has bounds for numbers and for dates, as 2024-05-01 or "
            "2024-05-01T10:00:00Z",
            param=f"filter.{condition.key}",
        ) from None
    return models.FieldCondition(key=key, range=models.DatetimeRange(**times))


def _equals(key: str, value: Scalar) -> models.FieldCondition:
    if isinstance(value, bool | str):
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))
    return models.FieldCondition(key=key, range=models.Range(gte=value, lte=value))
