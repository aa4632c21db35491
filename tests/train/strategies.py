"""Hypothesis strategies for the tests of transforms."""

import numpy as np
import torch
from hypothesis import strategies as st

from train.transforms.geometry import mask_box
from train.transforms.sample import Sample


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """Draw a sample of 1 to 3 blobs with boxes, points and padding. The image shows the first object."""
    height, width = draw(st.integers(8, 40)), draw(st.integers(8, 40))
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    count = draw(st.integers(1, 3))
    segments = np.zeros((count, height, width), bool)
    y, x = np.mgrid[:height, :width]
    for segment in segments:
        for _ in range(generator.integers(1, 3)):
            cy, cx, radius = generator.uniform(0, height), generator.uniform(0, width), generator.uniform(2, 8)
            segment |= (y - cy) ** 2 + (x - cx) ** 2 < radius**2
        segment[generator.integers(height), generator.integers(width)] = True
    ignore = (generator.random((height, width)) < 0.1) & ~segments.any(0)
    coords = np.zeros((count, 7, 2), np.float32)
    labels = np.full((count, 7), -1, np.int32)
    for row, segment in enumerate(segments):
        box = mask_box(torch.from_numpy(segment)).numpy()
        coords[row, :2], labels[row, :2] = box.reshape(2, 2), [2, 3]
        on, off = np.argwhere(segment)[:, ::-1], np.argwhere(~segment & ~ignore)[:, ::-1]
        coords[row, 2:4], labels[row, 2:4] = on[generator.integers(len(on), size=2)], 1
        if len(off):
            coords[row, 4:6], labels[row, 4:6] = off[generator.integers(len(off), size=2)], 0
    image = torch.from_numpy(segments[0].astype(np.uint8) * 255).expand(3, -1, -1).clone()
    return Sample(
        tile_index=0,
        image=image,
        segments=torch.from_numpy(segments),
        ignore=torch.from_numpy(ignore),
        point_coords=torch.from_numpy(coords),
        point_labels=torch.from_numpy(labels),
        object_ids=torch.arange(count),
        class_ids=torch.arange(count),
    )
