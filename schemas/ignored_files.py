"""Files that operating systems leave beside pictures, in a folder for training and in an archive alike."""

_SYSTEM_FILES = {
    "__macosx",
    "thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "icon\r",
    "$recycle.bin",
    "recycler",
    "system volume information",
    "lost+found",
    "@eadir",
}


def is_hidden(name: str) -> bool:
    """Whether a file or a folder of this name is hidden, or one that an operating system makes."""
    return name.startswith(".") or name.lower() in _SYSTEM_FILES
