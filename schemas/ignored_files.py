"""What operating systems leave beside pictures, and nobody means: in a folder for training and in an archive alike."""

_LEAVINGS = {"__macosx", "thumbs.db", "desktop.ini"}


def is_hidden(name: str) -> bool:
    """Of a file or a folder, without what it lies in."""
    return name.startswith(".") or name.lower() in _LEAVINGS
