import json

import pytest
from pydantic import ValidationError

from schemas.evaluation import EvaluateRequest
from schemas.prediction import OnError, PredictRequest


def predict(**fields: object) -> PredictRequest:
    return PredictRequest.model_validate_json(json.dumps({"instances": [{"b64": ""}], **fields}))


def evaluate(labels: object) -> EvaluateRequest:
    return EvaluateRequest.model_validate_json(json.dumps({"instances": [[[0]]], "labels": labels}))


def test_a_misspelt_field_is_an_error_that_names_it() -> None:
    with pytest.raises(ValidationError, match="topk"):
        predict(topk=3)


def test_what_is_not_said_stays_unsaid_so_that_the_query_can_say_it() -> None:
    request = predict()
    assert (request.top_k, request.on_error) == (None, None)


@pytest.mark.parametrize("top_k", [0, -1, "3", 3.0, True])
def test_top_k_is_a_whole_number_from_1_and_nothing_like_it(top_k: object) -> None:
    with pytest.raises(ValidationError, match="top_k"):
        predict(top_k=top_k)


def test_there_must_be_an_instance() -> None:
    with pytest.raises(ValidationError, match="instances"):
        predict(instances=[])


def test_instances_are_taken_as_they_are_so_that_each_can_fail_alone() -> None:
    mixed = [{"b64": "AA=="}, [[1, 2]], "nonsense", None]
    assert predict(instances=mixed).instances == mixed


def test_on_error_is_one_of_two_words() -> None:
    assert predict(on_error="item").on_error is OnError.ITEM
    with pytest.raises(ValidationError, match="on_error"):
        predict(on_error="ignore")


def test_a_request_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        predict().top_k = 5


def test_a_label_is_a_name_or_an_index_and_is_kept_as_such() -> None:
    assert evaluate(["7", 7]).labels == ["7", 7]


@pytest.mark.parametrize("label", [True, 1.0, None, ["a"]])
def test_a_label_of_another_kind_is_refused(label: object) -> None:
    with pytest.raises(ValidationError, match="labels"):
        evaluate([label])
