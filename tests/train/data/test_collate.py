from dataclasses import replace

import pytest
import torch

from schemas.store.store import Store
from train.data.collate import collate
from train.data.point_groups import group_by_points
from train.transforms.sample import Sample, read_sample


def _sample(store: Store, index: int, kind, negatives: bool = False) -> Sample:
    return read_sample(store.tile(index), store.prompts(index, kind, negatives=negatives))


def test_batch_has_the_published_axes(store: Store) -> None:
    samples = [_sample(store, 0, "box"), _sample(store, 1, "multi_point"), _sample(store, 2, "centroid")]
    batch = collate(samples)
    counts = [len(sample.object_ids) for sample in samples]
    total, longest = sum(counts), max(sample.point_labels.shape[1] for sample in samples)
    assert batch.images.shape == (1, 3, 3, 128, 128)
    assert batch.images.dtype == torch.uint8
    assert batch.ignore.shape == (1, 3, 128, 128)
    assert batch.masks.shape == (1, total, 128, 128)
    assert batch.masks.dtype == torch.bool
    assert batch.point_coords.shape == (1, total, longest, 2)
    assert batch.point_coords.dtype == torch.float32
    assert batch.point_labels.shape == (1, total, longest)
    assert batch.point_labels.dtype == torch.int32
    assert batch.object_to_image[0, :, 1].tolist() == [b for b, n in enumerate(counts) for _ in range(n)]
    assert batch.object_to_image[0, :, 0].tolist() == [0] * total
    assert batch.identifiers[0, :, 0].tolist() == batch.object_to_image[0, :, 1].tolist()
    assert batch.tile_indices == [0, 1, 2]
    padding = batch.point_labels[0] == -1
    assert padding.any()
    assert not batch.point_coords[0][padding].any()


def test_every_object_keeps_its_own_mask_and_points(store: Store) -> None:
    samples = [_sample(store, 0, "box"), _sample(store, 1, "multi_point", negatives=True)]
    batch = collate(samples)
    row = 0
    for sample in samples:
        for place in range(len(sample.object_ids)):
            width = sample.point_labels.shape[1]
            assert torch.equal(batch.masks[0, row], sample.segments[place])
            assert torch.equal(batch.point_coords[0, row, :width], sample.point_coords[place])
            assert torch.equal(batch.point_labels[0, row, :width], sample.point_labels[place])
            row += 1


def test_image_without_objects_is_legal(store: Store) -> None:
    first, second = _sample(store, 0, "box"), _sample(store, 1, "box")
    batch = collate([first.keep(torch.zeros(len(first.object_ids), dtype=torch.bool)), second])
    assert batch.images.shape[1] == 2
    assert batch.num_objects == len(second.object_ids)
    assert set(batch.object_to_image[0, :, 1].tolist()) == {1}
    assert batch.dropped == len(first.object_ids)
    nothing = collate([first.keep(torch.zeros(len(first.object_ids), dtype=torch.bool))])
    assert nothing.num_objects == 0
    assert nothing.groups == ()


@pytest.mark.parametrize("padding", [0, 3])
def test_groups_count_real_points_alone(padding: int) -> None:
    labels = torch.tensor([[1, -1, -1], [2, 3, -1], [0, -1, 1], [1, -1, -1]], dtype=torch.int32)
    labels = torch.nn.functional.pad(labels, (0, padding), value=-1)
    groups = group_by_points(labels)
    assert [(group.count, group.objects.tolist()) for group in groups] == [(1, [0, 3]), (2, [1, 2])]


def test_objects_of_an_image_that_is_ignored_throughout_do_not_count(store: Store) -> None:
    first, second = _sample(store, 0, "box"), _sample(store, 1, "box")
    assert collate([first, second]).num_scored_objects == len(first.object_ids) + len(second.object_ids)
    nothing = replace(first, ignore=torch.ones_like(first.ignore))
    assert collate([nothing, second]).num_scored_objects == len(second.object_ids)
