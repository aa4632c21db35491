import numpy as np
import pytest

from schemas.points import assemble_prompt
from schemas.prompt_kinds import PROMPT_SOURCES


@pytest.fixture
def columns() -> dict[str, np.ndarray]:
    return {
        "prompts/interior_coords": np.array([[5, 6]], np.float32),
        "prompts/interior_labels": np.array([1], np.int32),
        "prompts/positive_coords": np.array([[5, 6], [7, 8], [0, 0]], np.float32),
        "prompts/positive_labels": np.array([1, 1, -1], np.int32),
        "prompts/negative_coords": np.array([[1, 2], [0, 0]], np.float32),
        "prompts/negative_labels": np.array([0, -1], np.int32),
        "objects/box_xyxy": np.array([4, 5, 9, 10], np.int32),
    }


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
    prompt = assemble_prompt(PROMPT_SOURCES[kind], columns.__getitem__, negatives=negatives)
    assert prompt["point_coords"].tolist() == coords
    assert prompt["point_labels"].tolist() == labels
    assert prompt["point_coords"].dtype == np.float32
    assert prompt["point_labels"].dtype == np.int32
