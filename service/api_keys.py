"""API keys: kept as hashes alone, compared without telling by the time it takes how close a guess came."""

import hashlib
import hmac
import re
from collections.abc import Sequence

from pydantic import SecretStr

HASHED = "sha256:"


class Keys:
    """The keys of one setting, by comma; one may be `sha256:` and its hash in hex. False where there are none."""

    def __init__(self, setting: SecretStr) -> None:
        """Raises ValueError, whose text holds nothing of the setting."""
        entries = [entry.strip() for entry in setting.get_secret_value().split(",")]
        self._digests: Sequence[bytes] = [_digest(entry, i) for i, entry in enumerate(entries, 1) if entry]
        if setting.get_secret_value() and not self._digests:
            raise ValueError("there is no key in it; leave it empty to ask for none")

    def __bool__(self) -> bool:
        return bool(self._digests)

    def __contains__(self, key: str) -> bool:
        """Every key is compared, the first as the last."""
        digest = hashlib.sha256(key.encode("latin-1", "replace")).digest()  # a header's bytes
        return any([hmac.compare_digest(digest, known) for known in self._digests])  # noqa: C419 - all, always


def _digest(entry: str, position: int) -> bytes:
    if entry.lower().startswith(HASHED):
        digits = entry[len(HASHED) :]
        if not re.fullmatch("[0-9a-fA-F]{64}", digits):
            raise ValueError(f"key {position} starts with {HASHED} and goes on with something else than 64 hex digits")
        return bytes.fromhex(digits)
    if not re.fullmatch("[!-~]+", entry):
        raise ValueError(f"key {position} has a space or a character beyond ASCII in it, which no header can carry")
    return hashlib.sha256(entry.encode("ascii")).digest()
