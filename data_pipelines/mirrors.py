"""Where data may lie closer than its origin: the environment variable NT_JAX_DATA_MIRROR.

It names one or several folders or URL prefixes, separated by commas; a value that is an existing
folder as a whole is that folder, commas or not.
"""

import os
import pathlib

MIRROR = "NT_JAX_DATA_MIRROR"
"""Environment variable."""


def mirrors() -> list[str]:
    """Folders and URL prefixes, in the order in which they are tried."""
    value = os.environ.get(MIRROR, "").strip()
    if value and pathlib.Path(value).is_dir():
        return [value]
    return [place.strip() for place in value.split(",") if place.strip()]


def mirror_folders() -> list[pathlib.Path]:
    """The folders among them."""
    return [pathlib.Path(place) for place in mirrors() if not is_url(place)]


def is_url(place: str) -> bool:
    """Whether a mirror is asked over HTTP."""
    return place.lower().startswith(("http://", "https://"))
