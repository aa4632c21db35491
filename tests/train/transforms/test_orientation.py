"""An orientation moves pixels and points alike, and its inverse moves them back."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from train.transforms.orientation import ORIENTATIONS, Orientation


def test_index_names_all_eight() -> None:
    assert [orientation.index for orientation in ORIENTATIONS] == list(range(8))
    assert Orientation() == ORIENTATIONS[0]


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
@given(width=st.integers(1, 9), height=st.integers(1, 9), data=st.data())
def test_inverse_gives_pixels_and_points_back(orientation: Orientation, width: int, height: int, data: st.DataObject):
    pixels = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    moved = orientation.pixels(pixels)
    assert moved.shape[1::-1] == orientation.size_wh((width, height))
    assert np.array_equal(orientation.inverse.pixels(moved), pixels)
    channels_first = torch.from_numpy(pixels).permute(2, 0, 1)
    assert torch.equal(orientation.tensor(channels_first), torch.from_numpy(moved).permute(2, 0, 1))
    assert torch.equal(orientation.inverse.tensor(orientation.tensor(channels_first)), channels_first)
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    coords, labels = torch.tensor([[[x, y]]], dtype=torch.float32), torch.ones(1, 1, dtype=torch.int32)
    there = orientation.points(coords, labels, (width, height))
    new_x, new_y = there[0, 0].int().tolist()
    # The point is still on its pixel.
    assert np.array_equal(moved[new_y, new_x], pixels[y, x])
    assert torch.equal(orientation.inverse.points(there, labels, orientation.size_wh((width, height))), coords)


def test_corners_of_a_box_stay_in_order_and_padding_stays_where_it_is() -> None:
    coords = torch.tensor([[[1.0, 2.0], [4.0, 5.0], [0.0, 0.0]]])
    labels = torch.tensor([[2, 3, -1]], dtype=torch.int32)
    mirrored = Orientation(mirrored=True).points(coords, labels, (10, 8))
    assert mirrored.tolist() == [[[5.0, 2.0], [8.0, 5.0], [0.0, 0.0]]]
