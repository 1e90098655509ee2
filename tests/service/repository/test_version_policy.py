from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.repository.plan import Key, Plan, PlannedModel, key
from service.repository.scanner import Found
from service.repository.version_policy import NO_WISH, Wish, make_plan
from service.settings import Policy, parse_policy

ROOT = Path("artifacts")
LATEST = Policy()
NOTHING = Plan()


def found(*versions: int, stamp: str = "a") -> list[Found]:
    return [Found("m", version, ROOT / "m" / str(version), stamp) for version in sorted(versions)]


def plan_of(
    there: list[Found],
    policy: Policy = LATEST,
    wish: Wish = NO_WISH,
    refused: dict[Key, str] | None = None,
    before: Plan = NOTHING,
) -> PlannedModel:
    (model,) = make_plan({"m": there}, policy, {"m": wish}, refused or {}, before).models
    return model


def bad(*versions: int, stamp: str = "a") -> dict[Key, str]:
    return {("m", version, stamp): f"{version} is bad." for version in versions}


def serving(model: PlannedModel) -> list[int]:
    return [version.version for version in model.serving]


@pytest.mark.parametrize(
    ("policy", "versions"),
    [("latest", [3]), ("all", [1, 2, 3]), ("m=2", [2]), ("other=1", [3]), ("other=1, m=1", [1])],
)
def test_the_policy_says_which_versions_serve(policy: str, versions: list[int]) -> None:
    model = plan_of(found(1, 2, 3), parse_policy(policy))
    assert (serving(model), model.current) == (versions, versions[-1])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is none of latest, all, or pins"),
        ("newest", "'newest' is none of latest, all, or pins"),
        ("latest,m=1", "'latest' is none of"),
        ("M=1", "'M' is no name of a model"),
        ("../m=1", "'../m' is no name of a model"),
        ("m=0", "'0' is no version of m"),
        ("m=01", "'01' is no version of m"),
        ("m=\N{ARABIC-INDIC DIGIT FIVE}", "is no version of m"),
        ("m=1,m=2", "m is pinned twice"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_an_error(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_policy(text)


def test_a_bad_newest_version_leaves_the_one_before_and_its_reason_is_in_the_plan() -> None:
    model = plan_of(found(1, 2, 3), refused=bad(3))
    assert (serving(model), model.current) == ([2], 2)
    assert [(version.version, version.reason) for version in model.versions] == [(2, None), (3, "3 is bad.")]


def test_nothing_serves_in_the_place_of_a_pinned_version() -> None:
    refused = plan_of(found(1, 2), Policy(pins={"m": 2}), refused=bad(2))
    assert (refused.current, [version.reason for version in refused.versions]) == (None, ["2 is bad."])
    missing = plan_of(found(1, 2), Policy(pins={"m": 7}))
    assert missing.current is None
    assert [(version.version, version.refused) for version in missing.versions] == [(7, True)]


def test_a_refused_version_that_was_asked_for_is_shown_wherever_it_stands() -> None:
    def shown(policy: Policy, wish: Wish, *broken: int) -> list[tuple[int, str | None]]:
        model = plan_of(found(1, 2, 3), policy, wish, refused=bad(*broken))
        assert not {*serving(model)} & {*broken}
        return [(version.version, version.reason) for version in model.versions]

    asked = frozenset({1, 3})
    assert shown(LATEST, Wish(pin=2, refused=asked), 3) == [(2, None), (3, "3 is bad.")]
    assert shown(Policy(pins={"m": 2}), Wish(refused=asked), 1, 3) == [(1, "1 is bad."), (2, None), (3, "3 is bad.")]
    assert shown(LATEST, Wish(refused=asked), 1) == [(1, "1 is bad."), (3, None)]
    assert shown(LATEST, Wish(unloaded_up_to=3, refused=asked), 1) == [(1, "1 is bad."), (3, None)]
    assert [number for number, _ in shown(LATEST, Wish(pin=7, refused=asked), 3)] == [3, 7]  # and 7 as missing
    assert shown(LATEST, Wish(pin=2), 3) == [(2, None)]


def test_a_wished_pin_goes_before_the_policy() -> None:
    assert serving(plan_of(found(1, 2, 3), parse_policy("all"), Wish(pin=2))) == [2]
    assert serving(plan_of(found(1, 2, 3), parse_policy("m=3"), Wish(pin=1))) == [1]


def test_unloaded_versions_never_come_back_by_themselves_but_newer_ones_serve() -> None:
    unloaded = plan_of(found(1, 2), wish=Wish(unloaded_up_to=2))
    assert (unloaded.unloaded, serving(unloaded), [version.version for version in unloaded.versions]) == (True, [], [2])
    newer = plan_of(found(1, 2, 3), wish=Wish(unloaded_up_to=2))
    assert (newer.unloaded, serving(newer)) == (False, [3])
    bad_newer = plan_of(found(1, 2, 3), wish=Wish(unloaded_up_to=2), refused=bad(3))
    assert (bad_newer.unloaded, serving(bad_newer), bad_newer.versions[-1].reason) == (True, [], "3 is bad.")


def test_a_bundle_replaced_by_a_bad_one_under_its_number_goes_on_serving() -> None:
    before = make_plan({"m": found(1)}, LATEST, {}, {}, Plan())
    model = plan_of(found(1, stamp="b"), refused=bad(1, stamp="b"), before=before)
    assert [(version.stamp, version.refused) for version in model.versions] == [("a", False), ("b", True)]
    assert model.current == 1


numbers = st.integers(min_value=1, max_value=6)


@given(
    there=st.sets(numbers, min_size=1),
    policy=st.one_of(st.just(Policy()), st.just(Policy(all=True)), st.builds(lambda n: Policy(pins={"m": n}), numbers)),
    wish=st.builds(
        Wish,
        pin=st.none() | numbers,
        unloaded_up_to=st.integers(min_value=0, max_value=6),
        refused=st.frozensets(numbers),
    ),
    broken=st.sets(numbers),
)
def test_whatever_is_wished_a_plan_is_reached_that_serves_what_is_good_and_only_that(
    there: set[int], policy: Policy, wish: Wish, broken: set[int]
) -> None:
    refused: dict[Key, str] = {}
    held: set[Key] = set()
    while True:  # as the coordinator does; each round learns of one version at least
        model = plan_of(found(*there), policy, wish, refused)
        unknown = [version for version in model.serving if key("m", version) not in held]
        if not unknown:
            break
        for version in unknown:
            if version.version in broken:
                refused |= bad(version.version)
            else:
                held.add(key("m", version))
    good = {number for number in there - broken if number > wish.unloaded_up_to}
    pin = wish.pin or policy.pins.get("m")
    allowed = good & {pin} if pin else good
    expected = sorted(allowed) if policy.all or pin else sorted(allowed)[-1:]
    assert serving(model) == expected
    assert model.current == (expected[-1] if expected else None)
    numbered = [version.version for version in model.versions]
    assert numbered == sorted(numbered)
    assert model.versions  # whatever happened to it, a model that is there is shown
