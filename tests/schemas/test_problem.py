import pytest
from pydantic import ValidationError

from schemas.problem import Problem, ProblemCode


def test_the_codes_are_the_published_ones() -> None:
    """Client programs depend on the codes: add codes, but never change or remove one."""
    assert {code.value for code in ProblemCode} == {
        "invalid_request",
        "invalid_image",
        "model_required",
        "model_not_found",
        "model_refused",
        "not_found",
        "conflict",
        "method_not_allowed",
        "unsupported_media_type",
        "body_too_large",
        "too_many_images",
        "overloaded",
        "deadline_exceeded",
        "unauthorized",
        "forbidden",
        "not_implemented",
        "not_ready",
        "internal",
    }


@pytest.mark.parametrize("status", [200, 302, 399, 600])
def test_a_problem_has_the_status_of_an_error(status: int) -> None:
    with pytest.raises(ValidationError, match="status"):
        Problem(title="x", status=status, detail="x", code=ProblemCode.INTERNAL)


def test_a_problem_has_the_members_of_rfc_9457_and_a_code() -> None:
    problem = Problem(title="Not Found", status=404, detail="There is no such model.", code=ProblemCode.MODEL_NOT_FOUND)
    assert problem.model_dump(mode="json") == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "There is no such model.",
        "code": "model_not_found",
        "errors": [],
    }
