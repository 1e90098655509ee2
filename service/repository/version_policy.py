"""Which versions serve. Pure: the models in the folder, the policy, the calls and the refusals in; a plan out."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from service.repository.plan import Plan, PlannedModel, Refused, Unloaded, VersionRef
from service.settings import Policy

_MISSING = "This version was requested, but it is not in the artifacts folder; load another one."

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
    """A model in the artifacts folder, its versions in rising order."""

    versions: tuple[VersionRef, ...]
    override: Override = Override()

    def showing(self, refused: Collection[VersionRef]) -> "KnownModel":
        """The same model with the reasons of these refusals shown, and nothing else changed."""
        known = {ref.version: ref for ref in (*self.versions, *refused)}
        shown = self.override.refused | {ref.version for ref in refused}
        return KnownModel(tuple(known[number] for number in sorted(known)), replace(self.override, refused=shown))


def make_plan(models: Mapping[str, KnownModel], policy: Policy, refused: Refusals, before: Plan) -> Plan:
    """before is what serves now: if a bad bundle replaces a good one under the same number, the good one stays."""
    serving = {model.name: model.serving for model in before.models}
    return Plan(
        models=tuple(plan_model(name, models[name], policy, refused, serving.get(name, ())) for name in sorted(models))
    )


def plan_model(
    name: str, model: KnownModel, policy: Policy, refused: Refusals, before: Sequence[VersionRef]
) -> PlannedModel:
    """before are the versions of the model that serve now."""
    override, candidates = model.override, _candidates(model.versions, refused, before)
    pin = policy.pins.get(name) if override.pin is None else override.pin
    if pin is not None and all(ref.version != pin for ref in candidates):
        missing = VersionRef(name=name, version=pin, path=candidates[0].path.parent / str(pin))
        candidates, refused = [*candidates, missing], {**refused, missing: Refused(ref=missing, reason=_MISSING)}
    chosen = _chosen([ref for ref in candidates if ref.version > override.unloaded_up_to], policy, pin, refused)
    good = tuple(ref for ref in chosen if ref not in refused)
    # Without a good version, show what would serve without the unload.
    shown = chosen if good else _chosen(candidates, policy, pin, refused)
    requested = [ref for ref in candidates if ref in refused and ref.version in override.refused]
    return PlannedModel(
        name=name,
        serving=good,
        refused=tuple(refused[ref] for ref in candidates if ref in refused and (ref in shown or ref in requested)),
        unloaded=tuple(Unloaded(ref=ref) for ref in shown if ref not in refused and ref not in good),
    )


def _candidates(found: Sequence[VersionRef], refused: Refusals, before: Sequence[VersionRef]) -> list[VersionRef]:
    """In rising order. A number appears twice if its replacement was refused and the old bundle still serves."""
    candidates = []
    for ref in found:
        if ref in refused:
            candidates += [old for old in before if old.version == ref.version and old != ref]
        candidates.append(ref)
    return candidates


def _chosen(
    candidates: Sequence[VersionRef], policy: Policy, pin: int | None, refused: Refusals
) -> Sequence[VersionRef]:
    """The versions to serve, and those that were refused in their place."""
    if pin is not None:
        return [ref for ref in candidates if ref.version == pin]
    if policy.all:
        return candidates
    latest = max((ref.version for ref in candidates if ref not in refused), default=0)
    return [ref for ref in candidates if ref.version >= latest]
