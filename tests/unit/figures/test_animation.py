"""The animation: every frame there, in its place, and in its colours."""

import io

import numpy as np
import pytest
from PIL import Image as PILImage

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.figures.animation import KEPT, encode_gif
from brainseg_cli.figures.overlay import draw_overlay


def decode(data: bytes) -> list[np.ndarray]:
    with PILImage.open(io.BytesIO(data)) as gif:
        frames = []
        for index in range(gif.n_frames):
            gif.seek(index)
            frames.append(np.array(gif.convert("RGB")))
    return frames


def durations(data: bytes) -> list[int]:
    with PILImage.open(io.BytesIO(data)) as gif:
        shown = []
        for index in range(gif.n_frames):
            gif.seek(index)
            shown.append(gif.info["duration"])
    return shown


def noise(seed: int, height: int = 40, width: int = 56, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((40, 56), np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def test_few_colours_are_exact() -> None:
    shades = np.arange(256, dtype=np.uint8)
    frames = [np.stack([np.roll(shades, turn).reshape(16, 16)] * 3, axis=-1) for turn in (0, 5, 9)]
    for frame, drawn in zip(frames, decode(encode_gif(frames)), strict=True):
        np.testing.assert_array_equal(drawn, frame)


def test_it_loops_at_its_pace() -> None:
    data = encode_gif([noise(1), noise(2)], ms=247)
    with PILImage.open(io.BytesIO(data)) as gif:
        assert gif.info["loop"] == 0
    assert durations(data) == [240, 240]
    assert durations(encode_gif([noise(1), noise(1), noise(2)], ms=100)) == [200, 100]


def test_the_colours_of_the_overlay_are_exact_among_many() -> None:
    frames = [noise(seed) for seed in range(4)]
    for index, colour in enumerate(KEPT):
        frames[index % 4][index, 3:9] = colour
    drawn = decode(encode_gif(frames))
    assert len(np.unique(np.concatenate([frame.reshape(-1, 3) for frame in drawn]), axis=0)) <= 256
    for index, colour in enumerate(KEPT):
        assert (drawn[index % 4][index, 3:9] == colour).all()
    # 256 colours spread over the cube leave none further than a cell's corner away, on the average half of that
    distance = np.concatenate([np.linalg.norm(a.astype(int) - b, axis=-1) for a, b in zip(frames, drawn, strict=True)])
    assert 0 < distance.mean() < 30 and distance.max() < 120


def test_a_small_area_of_many_tints_keeps_its_share_beside_a_large_slice() -> None:
    image = noise(3, 200, 200) // 30 + 40  # 729 colours, 55 px each
    image[20:30, 20:30] = noise(5, 10, 10) // 4 + 40
    reference = np.zeros((200, 200), np.uint8)
    reference[20:30, 20:30] = 1
    figure = draw_overlay(image, 0 * reference, reference, style="errors", min_side=1, legend=False)
    (drawn,) = decode(encode_gif([figure]))
    tinted = np.s_[23:31, 23:31]  # inside the line, in a frame of two px
    # 16 where a colour weighs as many as its pixels
    assert np.linalg.norm(drawn[tinted].astype(int) - figure[tinted], axis=-1).mean() < 14


def test_frames_of_unequal_size_stand_at_the_top_in_the_middle_on_white() -> None:
    first, second = np.full((10, 20, 3), 7, np.uint8), np.full((6, 8, 1), 9, np.uint8)
    expected = np.full((10, 20, 3), 255, np.uint8)
    expected[:6, 6:14] = 9
    drawn = decode(encode_gif([first, second]))
    np.testing.assert_array_equal(drawn[0], first)
    np.testing.assert_array_equal(drawn[1], expected)


def test_the_slice_stays_in_its_place_while_the_legend_changes() -> None:
    image = np.full((40, 56, 3), 50, np.uint8)
    frames = [
        draw_overlay(image, square(5, 5, side), square(5, 9, 20), style="errors", min_side=56)
        for side in (1, 4, 11, 30)
    ]
    assert len({frame.shape[1] for frame in frames}) > 1
    lefts = {int(np.argwhere((frame[0] == 0).all(axis=-1))[0, 0]) for frame in decode(encode_gif(frames))}
    assert len(lefts) == 1


def test_equal_frames_make_equal_bytes() -> None:
    assert encode_gif([noise(1), noise(2)]) == encode_gif([noise(1), noise(2)])


def test_what_cannot_be_animated_is_refused() -> None:
    with pytest.raises(InputError, match="no frame"):
        encode_gif([])
    for ms in (-1, 0, 19, 655_351):
        with pytest.raises(UsageError, match=rf"{ms} ms .*20 to 655350"):
            encode_gif([noise(1)], ms=ms)
    assert durations(encode_gif([noise(1), noise(2)], ms=655_350)) == [655_350, 655_350]
