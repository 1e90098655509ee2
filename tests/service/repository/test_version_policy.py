from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.promotion import PromotedBy, Promotion
from service.repository.plan import Plan, PlannedModel, Refused, Unloaded, VersionRef
from service.repository.version_policy import KnownModel, Override, make_plan
from service.settings import Policy, Rule, parse_policy

ROOT = Path("artifacts")
LATEST = Policy()
NOTHING = Plan()
NO_OVERRIDE = Override()


def ref(version: int, stamp: str = "a") -> VersionRef:
    return VersionRef(name="m", version=version, path=ROOT / "m" / str(version), stamp=stamp)


def found(*versions: int, stamp: str = "a") -> list[VersionRef]:
    return [ref(version, stamp) for version in sorted(versions)]


def plan_of(
    there: list[VersionRef],
    policy: Policy = LATEST,
    override: Override = NO_OVERRIDE,
    refused: dict[VersionRef, Refused] | None = None,
    before: Plan = NOTHING,
    promotion: Promotion | None = None,
) -> PlannedModel:
    (model,) = make_plan({"m": KnownModel(tuple(there), promotion, override)}, policy, refused or {}, before).models
    return model


def bad(*versions: int, stamp: str = "a") -> dict[VersionRef, Refused]:
    return {ref(one, stamp): Refused(ref=ref(one, stamp), reason=f"{one} is bad.") for one in versions}


def serving(model: PlannedModel) -> list[int]:
    return [ref.version for ref in model.serving]


def versions_of(shown: Sequence[Refused | Unloaded]) -> list[int]:
    return [one.ref.version for one in shown]


def current(model: PlannedModel) -> int | None:
    return model.current.version if model.current else None


def reasons(model: PlannedModel) -> list[tuple[int, str | None]]:
    """Each version that is shown, and why it is refused."""
    serving_or_unloaded = [*model.serving, *(one.ref for one in model.unloaded)]
    shown = [(ref.version, None) for ref in serving_or_unloaded] + [
        (one.ref.version, one.reason) for one in model.refused
    ]
    return sorted(shown, key=lambda one: one[0])


def test_versions_that_the_policy_does_not_select_are_candidates() -> None:
    assert plan_of(found(1, 2, 3), promotion=None).candidates == (ref(1), ref(2))
    assert plan_of(found(1, 2), Policy(Rule.ALL)).candidates == ()
    assert plan_of(found(1, 2, 3), refused=bad(3)).candidates == (ref(1),)
    assert plan_of(found(1, 2), override=Override(unloaded_up_to=2)).candidates == (ref(1),)


@pytest.mark.parametrize(
    ("policy", "versions"),
    [("latest", [3]), ("all", [1, 2, 3]), ("m=2", [2]), ("other=1", [3]), ("other=1, m=1", [1])],
)
def test_the_policy_selects_the_versions(policy: str, versions: list[int]) -> None:
    model = plan_of(found(1, 2, 3), parse_policy(policy))
    assert (serving(model), current(model)) == (versions, versions[-1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' must be promoted, latest, all, or pins"),
        ("newest", "'newest' must be promoted, latest, all, or pins"),
        ("latest,m=1", "'latest' must be promoted, "),
        ("M=1", "'M' is not a model name"),
        ("../m=1", "'../m' is not a model name"),
        ("m=0", "'0' must be a version of m: a positive integer"),
        ("m=01", "'01' must be a version of m: a positive integer"),
        ("m=\N{ARABIC-INDIC DIGIT FIVE}", "must be a version of m: a positive integer"),
        ("m=1,m=2", "m is pinned twice"),
    ],
)
def test_rejects_an_invalid_policy(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_policy(text)


def test_a_refused_newest_version_leaves_the_one_before_it_and_shows_its_reason() -> None:
    model = plan_of(found(1, 2, 3), refused=bad(3))
    assert (serving(model), current(model)) == ([2], 2)
    assert reasons(model) == [(2, None), (3, "3 is bad.")]


def test_nothing_replaces_a_pinned_version() -> None:
    refused = plan_of(found(1, 2), Policy(pins={"m": 2}), refused=bad(2))
    assert (refused.current, reasons(refused)) == (None, [(2, "2 is bad.")])
    missing = plan_of(found(1, 2), Policy(pins={"m": 7}))
    assert missing.current is None
    ((version, reason),) = reasons(missing)
    assert version == 7
    assert reason is not None
    assert "does not exist in the artifacts folder" in reason


def test_shows_a_refused_version_that_a_call_requested() -> None:
    def shown(policy: Policy, override: Override, *broken: int) -> list[tuple[int, str | None]]:
        model = plan_of(found(1, 2, 3), policy, override, refused=bad(*broken))
        assert not {*serving(model)} & {*broken}
        return reasons(model)

    asked = frozenset({1, 3})
    assert shown(LATEST, Override(pin=2, refused=asked), 3) == [(2, None), (3, "3 is bad.")]
    assert shown(Policy(pins={"m": 2}), Override(refused=asked), 1, 3) == [
        (1, "1 is bad."),
        (2, None),
        (3, "3 is bad."),
    ]
    assert shown(LATEST, Override(refused=asked), 1) == [(1, "1 is bad."), (3, None)]
    assert shown(LATEST, Override(unloaded_up_to=3, refused=asked), 1) == [(1, "1 is bad."), (3, None)]
    assert [number for number, _ in shown(LATEST, Override(pin=7, refused=asked), 3)] == [3, 7]  # and 7 as missing
    assert shown(LATEST, Override(pin=2), 3) == [(2, None)]


def promoted(version: int, previous: int | None = None) -> Promotion:
    return Promotion(
        version=version, previous=previous, when="2026-01-01T00:00:00Z", by=PromotedBy.CLI, reason="Better."
    )


@pytest.mark.parametrize(
    ("promotion", "broken", "expected"),
    [
        (promoted(2), (), [2]),  # 3 and 4 are candidates
        (promoted(2), (2,), [1]),
        (promoted(2, previous=3), (2,), [3]),  # after a rollback from 3
        (promoted(2, previous=3), (2, 3), [1]),
        (promoted(2), (1, 2), []),
        (promoted(9, previous=2), (), [2]),  # 9 is not in the folder
        (promoted(9), (), [4]),
        (None, (), [4]),
        (None, (4,), [3]),
    ],
)
def test_serves_the_promoted_version_and_if_it_is_refused_an_older_one(
    promotion: Promotion | None, broken: tuple[int, ...], expected: list[int]
) -> None:
    model = plan_of(found(1, 2, 3, 4), refused=bad(*broken), promotion=promotion)
    assert serving(model) == expected
    if promotion and promotion.version in broken:
        assert dict(reasons(model))[promotion.version] == f"{promotion.version} is bad."


@pytest.mark.parametrize(("policy", "expected"), [("latest", [3]), ("all", [1, 2, 3]), ("m=1", [1]), ("other=1", [2])])
def test_only_the_policy_promoted_heeds_a_promotion(policy: str, expected: list[int]) -> None:
    assert serving(plan_of(found(1, 2, 3), parse_policy(policy), promotion=promoted(2))) == expected


def test_a_candidate_does_not_end_an_unload_but_a_newer_promoted_version_does() -> None:
    override = Override(unloaded_up_to=2)
    assert serving(plan_of(found(1, 2, 3), override=override, promotion=promoted(2, previous=1))) == []
    assert serving(plan_of(found(1, 2, 3), override=override, promotion=promoted(3, previous=2))) == [3]


def test_a_pin_by_call_overrides_the_policy() -> None:
    assert serving(plan_of(found(1, 2, 3), parse_policy("all"), Override(pin=2))) == [2]
    assert serving(plan_of(found(1, 2, 3), parse_policy("m=3"), Override(pin=1))) == [1]


def test_unloaded_versions_stay_unloaded_but_newer_ones_serve() -> None:
    unloaded = plan_of(found(1, 2), override=Override(unloaded_up_to=2))
    assert (versions_of(unloaded.unloaded), serving(unloaded)) == ([2], [])
    newer = plan_of(found(1, 2, 3), override=Override(unloaded_up_to=2))
    assert (versions_of(newer.unloaded), serving(newer)) == ([], [3])
    bad_newer = plan_of(found(1, 2, 3), override=Override(unloaded_up_to=2), refused=bad(3))
    assert (serving(bad_newer), reasons(bad_newer)) == ([], [(2, None), (3, "3 is bad.")])


def test_a_bundle_replaced_by_a_refused_one_keeps_serving() -> None:
    before = make_plan({"m": KnownModel((ref(1),))}, LATEST, {}, Plan())
    model = plan_of(found(1, stamp="b"), refused=bad(1, stamp="b"), before=before)
    assert [one.ref.stamp for one in model.refused] == ["b"]
    assert model.current == ref(1, "a")


numbers = st.integers(min_value=1, max_value=6)


@given(
    there=st.sets(numbers, min_size=1),
    policy=st.one_of(st.builds(Policy, st.sampled_from(Rule)), st.builds(lambda n: Policy(pins={"m": n}), numbers)),
    override=st.builds(
        Override,
        pin=st.none() | numbers,
        unloaded_up_to=st.integers(min_value=0, max_value=6),
        refused=st.frozensets(numbers),
    ),
    broken=st.sets(numbers),
)
def test_every_combination_ends_in_a_plan_that_serves_exactly_the_good_versions(
    there: set[int], policy: Policy, override: Override, broken: set[int]
) -> None:
    refused: dict[VersionRef, Refused] = {}
    held: set[VersionRef] = set()
    while True:  # as the coordinator does; each round learns of one version at least
        model = plan_of(found(*there), policy, override, refused)
        unknown = [ref for ref in model.serving if ref not in held]
        if not unknown:
            break
        for one in unknown:
            if one.version in broken:
                refused |= bad(one.version)
            else:
                held.add(one)
    good = {number for number in there - broken if number > override.unloaded_up_to}
    pin = override.pin or policy.pins.get("m")
    allowed = good & {pin} if pin else good
    expected = sorted(allowed) if policy.rule is Rule.ALL or pin else sorted(allowed)[-1:]
    assert serving(model) == expected
    assert current(model) == (expected[-1] if expected else None)
    assert versions_of(model.refused) == sorted(versions_of(model.refused))
    assert reasons(model)  # whatever happened to it, a model in the folder is shown
