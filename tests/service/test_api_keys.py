import hashlib

import pytest
from pydantic import SecretStr

from service.api_keys import Keys

HASH = hashlib.sha256(b"second").hexdigest()


def keys(setting: str) -> Keys:
    return Keys(SecretStr(setting))


def test_a_key_may_be_set_plain_or_as_a_hash() -> None:
    known = keys(f" first, sha256:{HASH.upper()} ,")
    assert "first" in known
    assert "second" in known
    assert "third" not in known
    assert "" not in known
    assert HASH not in known
    assert f"sha256:{HASH}" not in known


def test_an_empty_setting_has_no_keys() -> None:
    assert not keys("")
    assert "" not in keys("")


@pytest.mark.parametrize("setting", [" ", ",", " , ,"])
def test_a_setting_without_a_key_is_refused(setting: str) -> None:
    with pytest.raises(ValueError, match="it contains no key"):
        keys(setting)


@pytest.mark.parametrize(
    "bad", ["sha256:", "sha256:secret", f"sha256:{HASH}0", "secret key", "sécret-secret", "secret\nkey"]
)
def test_an_invalid_key_is_reported_by_its_position_only(bad: str) -> None:
    with pytest.raises(ValueError, match="key 2 ") as error:
        keys(f"good,{bad}")
    assert "secret" not in str(error.value)
    assert HASH not in str(error.value)


@pytest.mark.parametrize("odd", ["é", "\udcff", "first\x00", "☃"])
def test_any_text_can_be_compared_with_the_keys(odd: str) -> None:
    assert odd not in keys("first")
