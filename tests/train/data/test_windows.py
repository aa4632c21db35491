"""Windows of frames: which frames they have, whose masks they show, and how they become a batch."""

from typing import Any

import pytest
import torch

from schemas.errors import ConfigError
from schemas.store.store import Store
from tests.train.sequences import COLORS
from train.data.collate import collate
from train.data.dataset import SampleOptions, SampleRequest, TileDataset
from train.data.windows import find_windows
from train.score.answers import tiles_with_objects
from train.transforms.augment import AugmentConfig
from train.transforms.sample import Sample

ALL = AugmentConfig(rotate_deg=20, scale=0.2, shear_deg=10, crop=0.7)


def _dataset(store: Store, frames: int = 4, stride: int = 1, **options: Any) -> TileDataset:
    windows = find_windows(store, tiles_with_objects(store, "all"), frames, stride)
    return TileDataset(store.path, SampleOptions(128, **options), windows=windows)


def test_a_window_has_consecutive_frames_of_one_sequence(sequences: Store) -> None:
    # The frames of the sequences are the tiles 0 to 5, 6 to 11 and 12 to 17.
    windows = find_windows(sequences, tiles_with_objects(sequences, "all"), 3, 2)
    assert windows.tiles.tolist() == [[0, 2, 4], [1, 3, 5], [6, 8, 10], [7, 9, 11], [12, 14, 16], [13, 15, 17]]
    # Frame 4 has no mask, so it shows no object, and no window starts with it.
    singles = find_windows(sequences, tiles_with_objects(sequences, "all"), 2, 1)
    assert [4, 5] not in singles.tiles.tolist()
    assert singles.of(3) == [3, 4]


@pytest.mark.parametrize(
    ("frames", "stride", "message"),
    [
        (7, 1, "--frames 7: the sequence s0 has 6 frames, and a window needs more; lower --frames"),
        (3, 3, "--frames 3: the sequence s0 has 6 frames, and a window needs 7; lower --frames"),
    ],
)
def test_a_short_sequence_is_one_line(sequences: Store, frames: int, stride: int, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        find_windows(sequences, tiles_with_objects(sequences, "all"), frames, stride)
    assert message in str(error.value).replace(" — ", ": ")


def test_a_store_without_sequences_is_one_line(store: Store) -> None:
    with pytest.raises(ConfigError, match="has no sequences"):
        find_windows(store, tiles_with_objects(store, "all"), 4, 1)


@pytest.mark.parametrize("augment", [AugmentConfig(orientation=False), AugmentConfig(), ALL])
def test_every_frame_shows_its_objects_after_every_move(sequences: Store, augment: AugmentConfig) -> None:
    dataset = _dataset(sequences, augment=augment)
    for start in (1, 6, 13):
        sample = dataset[SampleRequest(start, epoch=3)]
        assert [frame.tile_index for frame in sample.frames] == list(range(start, start + 4))
        for frame in sample.frames:
            if frame.tile_index == 4:
                assert frame.ignore.all()
                continue
            for object_id, segment in zip(frame.object_ids.tolist(), frame.segments, strict=True):
                color = torch.tensor(COLORS[object_id])[:, None, None]
                shown = (frame.image.int() - color).abs().amax(0) < 3
                assert segment.any() == (object_id != 7 or frame.tile_index % 6 != 2)
                # Resampled edges mix two colors, so pixels of the outline differ.
                assert torch.count_nonzero(shown ^ segment) <= 0.25 * torch.count_nonzero(segment)


def test_all_frames_move_alike(sequences: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """If all frames have the same pixels before a random move, they have the same pixels after it."""
    dataset = _dataset(sequences, augment=ALL)
    monkeypatch.setattr(type(dataset.windows), "of", lambda _self, start: [start] * 4)
    for epoch in range(5):
        first, *later = dataset[SampleRequest(7, epoch)].frames
        for frame in later:
            assert torch.equal(frame.image, first.image)
            assert torch.equal(frame.segments, first.segments)
            assert torch.equal(frame.ignore, first.ignore)


def test_a_reversed_window_starts_with_its_last_frame(sequences: Store) -> None:
    dataset = _dataset(sequences, reverse=1.0)
    assert [frame.tile_index for frame in dataset[SampleRequest(6, 0)].frames] == [9, 8, 7, 6]
    # Frame 4 shows no object, so this window stays as it is.
    assert [frame.tile_index for frame in dataset[SampleRequest(1, 0)].frames] == [1, 2, 3, 4]
    half = _dataset(sequences, reverse=0.5)
    firsts = [half[SampleRequest(6, epoch)].tile_index for epoch in range(40)]
    assert 10 <= firsts.count(9) <= 30


def test_the_same_request_gives_the_same_window_and_colors_differ_little(sequences: Store) -> None:
    dataset = _dataset(sequences, augment=ALL, reverse=0.5, corrections=2, corrected_frames=3, prompt="random")
    first, second = (dataset[SampleRequest(12, 5)] for _ in range(2))
    assert first.corrected == second.corrected
    assert len(first.corrected) == 3
    assert first.corrected[0] == 0
    for ours, theirs in zip(first.frames, second.frames, strict=True):
        for name in ("image", "segments", "point_coords", "point_labels", "click_draws", "color_draws"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert first.color_draws is not None
    for frame in first.later:
        assert frame.color_draws is not None
        difference = (frame.color_draws - first.color_draws).abs()
        assert 0 < difference.max() <= 0.2
        assert difference[4] == 0
        assert not torch.equal(frame.click_draws, first.click_draws)  # pyright: ignore[reportArgumentType]


def _groups(samples: list[Sample]) -> list[tuple[int, tuple[int, ...], list[int]]]:
    return [(group.count, group.corrected, group.objects.tolist()) for group in collate(samples).groups]


def test_random_prompts_are_boxes_clicks_or_masks(sequences: Store) -> None:
    dataset = _dataset(sequences, prompt="random")
    widths = [dataset[SampleRequest(12, epoch)].point_labels.shape[1] for epoch in range(60)]
    # A mask is a prompt without points.
    assert 20 <= widths.count(0) <= 40
    assert {0, 1, 2} == set(widths)


def test_a_batch_of_windows(sequences: Store) -> None:
    boxes, masks = _dataset(sequences, prompt="box", corrections=1), _dataset(sequences, prompt="mask", corrections=1)
    samples = [boxes[SampleRequest(1, 0)], masks[SampleRequest(6, 0)]]
    batch = collate(samples)
    assert batch.images.shape == (4, 2, 3, 128, 128)
    assert batch.masks.shape == (4, 4, 128, 128)
    assert batch.point_coords.shape == (4, 4, 2, 2)
    for frame in range(4):
        for image in range(2):
            assert torch.equal(batch.images[frame, image], samples[image].frames[frame].image)
            assert torch.equal(batch.masks[frame, 2 * image : 2 * image + 2], samples[image].frames[frame].segments)
    assert batch.object_to_image[3].tolist() == [[3, 0], [3, 0], [3, 1], [3, 1]]
    assert batch.identifiers[2].tolist() == [[3, 1, 2], [3, 7, 2], [8, 1, 2], [8, 7, 2]]
    assert (batch.point_labels[1:] == -1).all()
    assert batch.point_labels[0].tolist() == [[2, 3], [2, 3], [-1, -1], [-1, -1]]
    assert _groups(samples) == [(0, (0,), [2, 3]), (2, (0,), [0, 1])]
    # Two numbers place a click, and one decides whether it comes with a mask.
    assert batch.click_draws.shape == (4, 4, 3)
    assert batch.num_scored_objects == 4
    assert [bool(ignored) for ignored in batch.ignore.flatten(2).all(2).flatten()] == [False] * 6 + [True, False]


def test_objects_in_different_corrected_frames_are_different_groups(sequences: Store) -> None:
    dataset = _dataset(sequences, prompt="box", corrections=1, corrected_frames=2)
    samples = [dataset[SampleRequest(6, epoch)] for epoch in range(8)]
    found = _groups(samples)
    assert {corrected for _, corrected, _ in found} == {(0, 1), (0, 2), (0, 3)}
    assert sorted(row for _, _, rows in found for row in rows) == list(range(16))


def test_an_empty_window_has_all_its_frames(sequences: Store) -> None:
    sample = _dataset(sequences)[SampleRequest(6, 0, empty=True)]
    batch = collate([sample])
    assert batch.images.shape == (4, 1, 3, 128, 128)
    assert batch.masks.shape == (4, 0, 128, 128)
    assert batch.groups == ()


def test_at_most_max_objects(sequences: Store) -> None:
    dataset = _dataset(sequences, max_objects=1)
    assert {int(dataset[SampleRequest(6, epoch)].object_ids) for epoch in range(10)} == {1, 7}
    assert [len(frame.segments) for frame in dataset[SampleRequest(6, 0)].frames] == [1] * 4


def test_clicks_fall_on_no_unlabeled_frame(sequences: Store) -> None:
    # The window of the tiles 1 to 4 ends with the frame that has no mask.
    for corrected_frames, allowed in ((4, {0, 1, 2}), (2, {0, 1, 2})):
        dataset = _dataset(sequences, prompt="box", corrections=1, corrected_frames=corrected_frames)
        for epoch in range(5):
            corrected = dataset[SampleRequest(1, epoch)].corrected
            assert set(corrected) <= allowed
            assert len(corrected) == min(corrected_frames, 3)
