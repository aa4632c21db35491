from dataclasses import asdict

import numpy as np
import pytest

from schemas.points import StoredPoints, assemble_prompt


@pytest.fixture
def columns() -> dict[str, np.ndarray]:
    points = StoredPoints(
        interior_coords=np.array([[5, 6]], np.float32),
        interior_labels=np.array([1], np.int32),
        positive_coords=np.array([[5, 6], [7, 8], [0, 0]], np.float32),
        positive_labels=np.array([1, 1, -1], np.int32),
        negative_coords=np.array([[1, 2], [0, 0]], np.float32),
        negative_labels=np.array([0, -1], np.int32),
    )
    return asdict(points) | {"box_xyxy": np.array([4, 5, 9, 10], np.int32)}


@pytest.mark.parametrize(
    ("kind", "negatives", "coords", "labels"),
    [
        ("centroid", False, [[5, 6]], [1]),
        ("centroid", True, [[5, 6], [1, 2]], [1, 0]),
        ("multi_point", False, [[5, 6], [7, 8]], [1, 1]),
        ("multi_point", True, [[5, 6], [7, 8], [1, 2]], [1, 1, 0]),
        ("box", False, [[4, 5], [9, 10]], [2, 3]),
        ("box", True, [[4, 5], [9, 10], [1, 2]], [2, 3, 0]),
    ],
)
def test_prompt_has_its_points_and_no_padding(columns: dict[str, np.ndarray], kind, negatives, coords, labels) -> None:
    prompt = assemble_prompt(kind, lambda path: columns[path.partition("/")[2]], negatives=negatives)
    assert prompt["point_coords"].tolist() == coords
    assert prompt["point_labels"].tolist() == labels
    assert prompt["point_coords"].dtype == np.float32
    assert prompt["point_labels"].dtype == np.int32
