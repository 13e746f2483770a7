"""Every recorded case of the typed protocol v0.1, read as JSON text and as Python data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pydantic
import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from penstock.protocol.schema import TYPES

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "vectors" / "inference_v0_1.json").read_text(encoding="utf-8")
)
# Before 2.11 the first of two equal keys won; before 2.13 a large float was written `1e20`, not `1e+20`.
OLDEST_PYDANTIC = (2, 13)


def as_json(case: dict[str, Any]) -> Any:
    text = case["input_text"] if "input_text" in case else json.dumps(case["input"])
    return TypeAdapter(TYPES[case["type"]]).validate_json(text)


def as_python(case: dict[str, Any]) -> Any:
    data = json.loads(case["input_text"]) if "input_text" in case else case["input"]
    return TypeAdapter(TYPES[case["type"]]).validate_python(data)


def settled(value: Any, case: dict[str, Any]) -> Any:
    """The value with its volatile fields, which must be integers, set to what the case recorded."""
    volatile = case.get("volatile", [])
    if not volatile:
        return value
    assert isinstance(value, BaseModel)
    assert [type(getattr(value, name)) for name in volatile] == [int] * len(volatile)
    recorded = json.loads(case["canonical_json"])
    return value.model_copy(update={name: recorded[name] for name in volatile})


@pytest.mark.parametrize("read", [as_json, as_python])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_case(case: dict[str, Any], read: Any) -> None:
    outcome = case.get("python_mode", case) if read is as_python else case
    if outcome["valid"]:
        value = settled(read(case), case)
        assert TypeAdapter(TYPES[case["type"]]).dump_json(value).decode() == outcome["canonical_json"]
        return
    with pytest.raises(ValidationError) as caught:
        read(case)
    found = [{"loc": list(error["loc"]), "type": error["type"]} for error in caught.value.errors()]
    assert found == outcome["errors"]


def test_all_cases_are_there() -> None:
    assert len({case["id"] for case in CASES}) == len(CASES) == 283


def test_no_case_depends_on_a_pydantic_we_support() -> None:
    """Some outcomes are recorded as different on old releases; all of those are older than our oldest."""
    sensitive = {version for case in CASES for version in case.get("pydantic_sensitive", [])}
    assert sensitive
    for version in sensitive:
        assert tuple(map(int, version.split(".")[:2])) < OLDEST_PYDANTIC
    assert tuple(map(int, pydantic.VERSION.split(".")[:2])) >= OLDEST_PYDANTIC
