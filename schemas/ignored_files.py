"""Files that operating systems leave in folders and archives of images."""

_SYSTEM_FILES = {
    "__macosx",
    "thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "icon\r",
    "$recycle.bin",
    "recycler",
    "recycled",
    "#recycle",
    "found.000",
    "system volume information",
    "lost+found",
    "@eadir",
    "__pycache__",
    "_gsdata_",
    "network trash folder",
    "temporary items",
    "zbthumbnail.info",
}


def is_hidden(name: str) -> bool:
    """Returns whether a file or folder of this name is hidden, or created by an operating system."""
    return name.startswith(".") or name.lower() in _SYSTEM_FILES
