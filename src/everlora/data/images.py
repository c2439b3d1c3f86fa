"""Turns whatever a row holds as an image into an array of bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from everlora.core.errors import DataError

MOST_PIXELS = 50_000_000
"""Pixels of an image: a small file may unpack to gigabytes."""


def to_array(value: Any, at: str, folder: Path | None = None) -> NDArray[np.uint8]:
    """Return ``value`` as an array of shape (height, width) or (height, width, 3).

    Pictures of 16 bits are scaled to 8, so that the brightest value stays the brightest; what is transparent shows
    white.

    Args:
        value: a PIL image, an array or nested lists of whole numbers 0..255, a path, or the mapping with ``bytes`` or
            ``path`` in which Parquet files keep images.
        at: where the row stands, for messages.
        folder: the folder against which a path is read.

    Raises:
        DataError: it is none of these, the picture cannot be decoded, or it has pixels of 32 bits, of which nobody
            knows which is white.
    """
    value = _opened(value, at, folder)
    if isinstance(value, np.ndarray | list):
        return _checked(value, at)
    mode = getattr(value, "mode", None)  # only PIL images have one; Pillow is optional, so its class is not asked for
    if mode is None:
        raise DataError(f"{at}: column 'image' must hold a PIL image or an array, found {type(value).__name__}")
    # Pillow's own conversions to 8 bits cut values off at 255. Older versions read a PNG of 16 bits as one of 32.
    if mode.startswith("I;16") or (mode == "I" and getattr(value, "format", None) == "PNG"):
        return np.rint(np.asarray(value, dtype=np.float64) / 257).astype(np.uint8)
    if mode in ("I", "F"):
        raise DataError(f"{at}: a picture with pixels of 32 bits, of which nobody knows which is white; save 8 or 16")
    if _has_alpha(value):
        from PIL import Image

        layer = value.convert("RGBA")
        value = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return np.array(value if mode in ("L", "RGB") else value.convert("RGB"), dtype=np.uint8)


def is_transparent(value: Any, at: str, folder: Path | None = None) -> bool:
    """Return whether a picture, given as to `to_array`, has pixels through which a background is seen."""
    value = _opened(value, at, folder)
    return _has_alpha(value) and int(np.asarray(value.convert("RGBA"))[:, :, 3].min()) < 255


def _has_alpha(value: Any) -> bool:
    return getattr(value, "mode", "") in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in getattr(
        value, "info", {}
    )


def _opened(value: Any, at: str, folder: Path | None) -> Any:
    """Return a picture or an array from whatever a row holds for it."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        value = (folder or Path()) / value
    return _decoded(value, at) if isinstance(value, bytes | Path) else value


def _decoded(value: bytes | Path, at: str) -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise DataError(f"{at}: reading image files needs Pillow; install everlora[vision]") from None
    try:
        with Image.open(io.BytesIO(value) if isinstance(value, bytes) else value) as image:
            if image.width * image.height > MOST_PIXELS:
                raise DataError(
                    f"{at}: an image of {image.width} x {image.height} pixels; make it at most {MOST_PIXELS:,}"
                )
            image.load()
            return image
    except DataError:
        raise
    except Exception as error:  # Pillow raises a dozen kinds for damaged files, and one for bombs
        raise DataError(f"{at}: the image cannot be read ({error})") from None


def _checked(value: Any, at: str) -> NDArray[np.uint8]:
    try:
        array = np.asarray(value)
    except ValueError:
        raise DataError(f"{at}: the rows of the image differ in length") from None
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not array.size or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise DataError(f"{at}: an image must be (height, width) or (height, width, 3), found shape {array.shape}")
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
        raise DataError(f"{at}: an image must hold whole numbers 0..255, found {array.dtype} outside that; scale it")
    return np.ascontiguousarray(array, dtype=np.uint8)
