"""API keys: only their hashes are kept, and a comparison takes the same time for every guess."""

import hashlib
import hmac
import re
from collections.abc import Sequence

from pydantic import SecretStr

HASHED = "sha256:"


class Keys:
    """The keys of one setting, separated by commas; a key may be `sha256:` and its hash in hex."""

    def __init__(self, setting: SecretStr) -> None:
        """Raises ValueError, whose message contains nothing of the setting."""
        entries = [entry.strip() for entry in setting.get_secret_value().split(",")]
        self._digests: Sequence[bytes] = [_digest(entry, i) for i, entry in enumerate(entries, 1) if entry]
        if setting.get_secret_value() and not self._digests:
            raise ValueError("it contains no key; leave it empty to require none")

    def __bool__(self) -> bool:
        return bool(self._digests)

    def __contains__(self, key: str) -> bool:
        """Compares with every key, whether or not an earlier one matches."""
        digest = hashlib.sha256(key.encode("latin-1", "replace")).digest()  # a header's bytes
        return any([hmac.compare_digest(digest, known) for known in self._digests])  # noqa: C419 - a generator would stop early


def _digest(entry: str, position: int) -> bytes:
    if entry.lower().startswith(HASHED):
        digits = entry[len(HASHED) :]
        if not re.fullmatch("[0-9a-fA-F]{64}", digits):
            raise ValueError(f"key {position} starts with {HASHED} but does not continue with 64 hex digits")
        return bytes.fromhex(digits)
    if not re.fullmatch("[!-~]+", entry):
        raise ValueError(f"key {position} contains a space or a non-ASCII character, which a header cannot carry")
    return hashlib.sha256(entry.encode("ascii")).digest()
