import json

import pytest
from pydantic import ValidationError

from schemas.evaluation import EvaluateRequest
from schemas.prediction import OnError, PredictRequest


def predict(**fields: object) -> PredictRequest:
    return PredictRequest.model_validate_json(json.dumps({"instances": [{"b64": ""}], **fields}))


def evaluate(labels: object) -> EvaluateRequest:
    return EvaluateRequest.model_validate_json(json.dumps({"instances": [[[0]]], "labels": labels}))


def test_names_a_misspelt_field() -> None:
    with pytest.raises(ValidationError, match="topk"):
        predict(topk=3)


def test_missing_options_are_none_so_that_the_query_can_set_them() -> None:
    request = predict()
    assert (request.top_k, request.on_error) == (None, None)


@pytest.mark.parametrize("top_k", [0, -1, "3", 3.0, True])
def test_refuses_a_top_k_that_is_not_a_positive_integer(top_k: object) -> None:
    with pytest.raises(ValidationError, match="top_k"):
        predict(top_k=top_k)


def test_refuses_a_request_without_instances() -> None:
    with pytest.raises(ValidationError, match="instances"):
        predict(instances=[])


def test_keeps_invalid_instances_so_that_each_can_fail_alone() -> None:
    mixed = [{"b64": "AA=="}, [[1, 2]], "nonsense", None]
    assert predict(instances=mixed).instances == mixed


def test_on_error_is_request_or_item() -> None:
    assert predict(on_error="item").on_error is OnError.ITEM
    with pytest.raises(ValidationError, match="on_error"):
        predict(on_error="ignore")


def test_a_request_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        predict().top_k = 5


def test_keeps_a_label_as_a_string_or_an_integer() -> None:
    assert evaluate(["7", 7]).labels == ["7", 7]


@pytest.mark.parametrize("label", [True, 1.0, None, ["a"]])
def test_refuses_a_label_that_is_neither_a_string_nor_an_integer(label: object) -> None:
    with pytest.raises(ValidationError, match="labels"):
        evaluate([label])
