"""Decides which versions serve: a pure function from models, policy, calls and refusals to a plan."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from schemas.promotion import Promotion, serving_order
from service.repository.plan import Plan, PlannedModel, Refused, Unloaded, VersionRef
from service.settings import Policy, Rule

DAMAGED_RECORD = "promoted.json is damaged, so it is unknown which version serves. Promote a version again."
_MISSING = "The pinned version does not exist in the artifacts folder; load another one."

Refusals = Mapping[VersionRef, Refused]


@dataclass(frozen=True)
class Override:
    """What calls changed for one model. The versions up to unloaded_up_to do not serve (0: no unload).

    refused holds the versions that calls requested and that were refused: their reasons are shown.
    """

    pin: int | None = None
    unloaded_up_to: int = 0
    refused: frozenset[int] = frozenset()


@dataclass(frozen=True)
class KnownModel:
    """A model in the artifacts folder, its versions in rising order. promotion is the record in promoted.json.

    If the record is damaged, only versions that serve already may serve, and the only version of a model.
    """

    versions: tuple[VersionRef, ...]
    promotion: Promotion | None = None
    override: Override = Override()
    damaged: bool = False

    def showing(self, refused: Collection[VersionRef]) -> "KnownModel":
        """The same model with the reasons of these refusals shown, and nothing else changed."""
        known = {ref.version: ref for ref in (*self.versions, *refused)}
        shown = self.override.refused | {ref.version for ref in refused}
        versions = tuple(known[number] for number in sorted(known))
        return replace(self, versions=versions, override=replace(self.override, refused=shown))


def make_plan(models: Mapping[str, KnownModel], policy: Policy, refused: Refusals, before: Plan) -> Plan:
    """Returns the plan. before is the current plan: a bad bundle does not replace a serving one of the same number."""
    serving = {model.name: model.serving for model in before.models}
    return Plan(
        models=tuple(plan_model(name, models[name], policy, refused, serving.get(name, ())) for name in sorted(models))
    )


def plan_model(
    name: str, model: KnownModel, policy: Policy, refused: Refusals, before: Sequence[VersionRef]
) -> PlannedModel:
    """Returns the plan of one model. before are its versions that serve now."""
    override, candidates = model.override, _candidates(model.versions, refused, before)
    pin = policy.pins.get(name) if override.pin is None else override.pin
    if pin is not None and all(ref.version != pin for ref in candidates):
        missing = VersionRef(name=name, version=pin, path=candidates[0].path.parent / str(pin))
        candidates, refused = [*candidates, missing], {**refused, missing: Refused(ref=missing, reason=_MISSING)}
    if model.damaged and policy.rule is Rule.PROMOTED and pin is None and len(model.versions) > 1:
        unknown = [ref for ref in model.versions if ref not in before]
        refused = {**{ref: Refused(ref=ref, reason=DAMAGED_RECORD) for ref in unknown}, **refused}
    promotion = model.promotion if policy.rule is Rule.PROMOTED else None
    order = serving_order((ref.version for ref in model.versions), promotion) if pin is None else [pin]
    every = pin is None and policy.rule is Rule.ALL

    def chosen(order: Sequence[int]) -> Sequence[VersionRef]:
        numbers = set(order if every else _until_good(order, candidates, refused))
        return [ref for ref in candidates if ref.version in numbers]

    shown = chosen([number for number in order if number > override.unloaded_up_to])
    good = tuple(ref for ref in shown if ref not in refused)
    if not good:  # show the version that would serve without the unload
        shown = chosen(order)
    requested = [ref for ref in candidates if ref in refused and ref.version in override.refused]
    selected = {ref.version for ref in (*shown, *requested, *good)}
    return PlannedModel(
        name=name,
        serving=good,
        refused=tuple(refused[ref] for ref in candidates if ref in refused and (ref in shown or ref in requested)),
        candidates=tuple(ref for ref in model.versions if ref.version not in selected),
        unloaded=tuple(Unloaded(ref=ref) for ref in shown if ref not in refused and ref not in good),
    )


def _candidates(found: Sequence[VersionRef], refused: Refusals, before: Sequence[VersionRef]) -> list[VersionRef]:
    """Returns the versions in rising order. If a new bundle was refused and its old one serves, both are in it."""
    candidates = []
    for ref in found:
        if ref in refused:
            candidates += [old for old in before if old.version == ref.version and old != ref]
        candidates.append(ref)
    return candidates


def _until_good(order: Sequence[int], candidates: Sequence[VersionRef], refused: Refusals) -> Iterator[int]:
    """Yields the versions up to the first one that is not refused."""
    good = {ref.version for ref in candidates if ref not in refused}
    for number in order:
        yield number
        if number in good:
            return
