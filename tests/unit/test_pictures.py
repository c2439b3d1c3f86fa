"""A picture is read as a viewer shows it, whatever its pixels are stored as, or refused."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from everlora.core.errors import DataError
from everlora.data.images import to_array
from everlora.data.tasks import task_from_dataset

Image = pytest.importorskip("PIL.Image")
EIGHT = np.array([[0, 1, 127], [128, 254, 255]], dtype=np.uint8)


def saved(picture: Any, kind: str = "png") -> bytes:
    out = io.BytesIO()
    picture.save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bits_are_scaled_to_eight(kind: str) -> None:
    """65535 / 255 = 257, so that 257 k is read as k."""
    wide = Image.fromarray(EIGHT.astype(np.uint16) * 257)
    assert np.array_equal(to_array(saved(wide, kind), "row 1"), EIGHT)
    assert np.array_equal(to_array(wide, "row 1"), EIGHT)
    between = Image.fromarray(np.array([[0, 128, 129, 65535]], dtype=np.uint16))
    assert to_array(between, "row 1").tolist() == [[0, 0, 1, 255]]


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_of_32_bits_are_refused(kind: type) -> None:
    with pytest.raises(DataError, match="row 1: a picture with pixels of 32 bits, of which nobody knows"):
        to_array(Image.fromarray(EIGHT.astype(kind)), "row 1")


def test_what_is_transparent_is_white_and_that_is_noted() -> None:
    clear = Image.new("RGBA", (1, 2), (0, 0, 0, 0))
    clear.putpixel((0, 1), (10, 20, 30, 255))
    shown = [[[255, 255, 255]], [[10, 20, 30]]]
    assert to_array(saved(clear), "row 1").tolist() == shown
    assert to_array(clear.convert("LA"), "row 1").tolist()[0] == [[255, 255, 255]]
    half = Image.new("RGBA", (1, 1), (0, 0, 0, 51))
    assert to_array(half, "row 1").tolist() == [[[204, 204, 204]]]  # 255 (1 - 51 / 255)
    palette = Image.new("P", (1, 2))
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.putpixel((0, 1), 1)
    keyed = io.BytesIO()
    palette.save(keyed, "png", transparency=0)
    assert to_array(keyed.getvalue(), "row 1").tolist() == shown
    full = Image.new("RGBA", (1, 1), (10, 20, 30, 255))
    assert to_array(full, "row 1").tolist() == [[[10, 20, 30]]]
    task = task_from_dataset(
        "t", [{"image": clear, "label": "a"}, {"image": full, "label": "b"}], [{"image": half, "label": "a"}]
    )
    assert task.notes == ("2 pictures have transparent parts, which are read as white",)
