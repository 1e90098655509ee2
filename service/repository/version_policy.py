"""Which versions are to serve. Pure: what is there, what is wished for and what was refused in, a plan out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.repository.plan import Key, Plan, PlannedModel, PlannedVersion
from service.repository.scanner import Found
from service.settings import Policy

_MISSING = "It is the version that was asked for, and it is not in the folder of bundles; load another one."


@dataclass(frozen=True)
class Wish:
    """What calls said of one model: the version that is to serve, and up to which version none is to (0: no unload).

    refused are the versions that calls asked for since, and that were refused: their reasons are shown.
    """

    pin: int | None = None
    unloaded_up_to: int = 0
    refused: frozenset[int] = frozenset()


NO_WISH = Wish()


def make_plan(
    found: Mapping[str, Sequence[Found]],
    policy: Policy,
    wishes: Mapping[str, Wish],
    refused: Mapping[Key, str],
    before: Plan,
) -> Plan:
    """before is what serves now: a bundle that was replaced by a bad one under the same number goes on serving."""
    serving = {model.name: model.serving for model in before.models}
    return Plan(
        models=tuple(
            _plan_model(name, _candidates(found[name], refused, serving.get(name, ())), policy, wishes.get(name))
            for name in sorted(found)
            if found[name]
        )
    )


def target(
    found: Sequence[Found], policy: Policy, wish: Wish, refused: Mapping[Key, str], before: Plan
) -> PlannedVersion | None:
    """The version that is to answer under this wish; before is as in make_plan. None: it is not there, or refused."""
    (model,) = make_plan({found[0].name: found}, policy, {found[0].name: wish}, refused, before).models
    return next((version for version in model.serving if version.version == model.current), None)


def _candidates(
    found: Sequence[Found], refused: Mapping[Key, str], serving: Sequence[PlannedVersion]
) -> list[PlannedVersion]:
    """Rising; a version twice where its refused replacement lies in the folder and the old one still serves."""
    candidates = []
    for one in found:
        reason = refused.get((one.name, one.version, one.stamp))
        if reason is not None:
            candidates += [old for old in serving if old.version == one.version and old.stamp != one.stamp]
        candidates.append(PlannedVersion(version=one.version, path=one.path, stamp=one.stamp, reason=reason))
    return candidates


def _plan_model(name: str, candidates: Sequence[PlannedVersion], policy: Policy, wish: Wish | None) -> PlannedModel:
    wish = wish or NO_WISH
    pin = policy.pins.get(name) if wish.pin is None else wish.pin
    chosen = _chosen([one for one in candidates if one.version > wish.unloaded_up_to], policy, pin)
    good = [one.version for one in chosen if not one.refused]
    asked = [one for one in candidates if one.refused and one.version in wish.refused]
    if good:
        return PlannedModel(name=name, versions=_rising(chosen, asked), current=good[-1])
    # What would serve but for the unload is shown with it; that a call must load it again is not the folder's fault.
    everything = _chosen(candidates, policy, pin)
    unloaded = any(not one.refused for one in everything)
    return PlannedModel(name=name, versions=_rising(everything, asked), current=None, unloaded=unloaded)


def _rising(chosen: Sequence[PlannedVersion], asked: Sequence[PlannedVersion]) -> tuple[PlannedVersion, ...]:
    more = [one for one in asked if one not in chosen]
    return tuple(sorted([*chosen, *more], key=lambda one: one.version))


def _chosen(candidates: Sequence[PlannedVersion], policy: Policy, pin: int | None) -> list[PlannedVersion]:
    """Those that are to serve, and those that were refused in their place."""
    if pin is not None:
        pinned = [one for one in candidates if one.version == pin]
        if pinned or not candidates:
            return pinned
        return [PlannedVersion(version=pin, path=candidates[0].path.parent / str(pin), reason=_MISSING)]
    if policy.all:
        return list(candidates)
    latest = max((one.version for one in candidates if not one.refused), default=0)
    return [one for one in candidates if one.version >= latest]
