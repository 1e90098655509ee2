import pytest

from schemas.manifest import ModelManifest, VariantName
from service.backends.variants import Policy, choose, fall_back
from tests.support.altered_bundles import manifest_with


@pytest.mark.parametrize(
    ("names", "gpu", "policy", "chosen", "reason"),
    [
        (["fp32"], False, "auto", "fp32", "no int8"),
        (["fp32"], True, "auto", "fp32", "no fp16"),
        (["fp32", "int8", "fp16"], False, "auto", "int8", "fastest"),
        (["fp32", "int8", "fp16"], True, "auto", "fp16", "fastest"),
        (["fp32", "int8"], True, "auto", "fp32", "no fp16"),
        (["fp32", "int8"], False, VariantName.FP32, "fp32", "CONVOY_VARIANT=fp32"),
        (["fp32", "fp16"], False, VariantName.FP16, "fp16", "CONVOY_VARIANT=fp16"),
        (["fp32"], False, VariantName.INT8, "fp32", "CONVOY_VARIANT=int8, but the bundle has no int8"),
    ],
)
def test_the_variant_follows_device_and_policy(
    names: list[str], gpu: bool, policy: Policy, chosen: str, reason: str
) -> None:
    choice = choose(manifest_with(names), gpu=gpu, policy=policy)
    assert choice.variant.name == chosen
    assert reason in choice.reason


def test_a_refused_variant_falls_back_to_fp32_with_its_reason() -> None:
    manifest = manifest_with(["fp32", "int8"])
    instead = fall_back(manifest, choose(manifest, gpu=False, policy="auto"), "it is wrong.")
    assert instead is not None
    assert (instead.variant.name, instead.reason) == ("fp32", "int8 was refused: it is wrong.")


def test_nothing_takes_the_place_of_fp32() -> None:
    manifest: ModelManifest = manifest_with(["fp32"])
    assert fall_back(manifest, choose(manifest, gpu=False, policy="auto"), "it is wrong.") is None
