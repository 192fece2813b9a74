"""Augmentation: drawn from the seed alone, the image and its mask moved together."""

import numpy as np
import pytest

from brainseg_cli.augment import A, GridElastic, build_augment
from brainseg_cli.config import AugmentConfig

LGG = ["pre-contrast", "FLAIR", "post-contrast"]
NONE = AugmentConfig(rotate_deg=0, zoom=0, shift=0, flip_horizontal=0)
ALL = AugmentConfig(
    rotate_deg=25,
    zoom=0.2,
    shift=0.1,
    shear_deg=8,
    flip_horizontal=0.5,
    flip_vertical=0.5,
    brightness=0.2,
    contrast=0.2,
    gamma=0.3,
    elastic=0.5,
    tone=0.2,
    noise=0.05,
    channel_dropout=0.3,
    channel_copy=0.3,
)


@pytest.fixture
def image(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros((48, 64), np.uint8)
    mask[10:25, 20:45] = 1
    return mask


def test_the_seed_alone_decides(image: np.ndarray, mask: np.ndarray) -> None:
    one, other = build_augment(ALL, LGG), build_augment(ALL, LGG)
    kept = image.copy(), mask.copy()
    seen = set()
    for seed in (3, 8, 3, 2**32 - 1, 8):
        first = one(image, mask, seed)
        one(image, mask, seed + 1 if seed < 9 else 0)  # what came before does not matter
        second = other(image, mask, seed)
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])
        seen.add(first[0].tobytes())
    assert len(seen) == 3
    np.testing.assert_array_equal(image, kept[0])
    np.testing.assert_array_equal(mask, kept[1])


def test_shapes_types_and_a_mask_of_zeros_and_ones(image: np.ndarray, mask: np.ndarray) -> None:
    augment = build_augment(ALL, LGG)
    for channels in (1, 3):
        for seed in range(30):
            changed, moved = augment(image[..., :channels], mask, seed)
            assert changed.shape == (48, 64, channels) and changed.dtype == np.uint8
            assert moved.shape == (48, 64) and moved.dtype == np.uint8
            assert set(np.unique(moved)) <= {0, 1} and moved.any()


@pytest.mark.parametrize(
    "config",
    [
        NONE.model_copy(update={"rotate_deg": 40.0}),
        NONE.model_copy(update={"zoom": 0.3}),
        NONE.model_copy(update={"shift": 0.2}),
        NONE.model_copy(update={"shear_deg": 15.0}),
        NONE.model_copy(update={"elastic": 1.0}),
        NONE.model_copy(update={"flip_horizontal": 1.0}),
        NONE.model_copy(update={"flip_vertical": 1.0}),
    ],
)
def test_image_and_mask_move_together(config: AugmentConfig, mask: np.ndarray) -> None:
    augment = build_augment(config)
    image = np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)  # the mask, as an image
    moved_at_all = False
    for seed in range(10):
        changed, moved = augment(image, mask, seed)
        # linear against nearest: they may differ along the outline, by half a pixel
        differs = (changed[..., 0] > 127) != (moved == 1)
        assert differs.sum() <= 0.06 * mask.sum()
        moved_at_all |= bool((moved != mask).any())
        assert (changed[..., 0] == changed[..., 2]).all()
    assert moved_at_all


@pytest.mark.parametrize("name", ["brightness", "contrast", "gamma", "tone", "noise"])
def test_intensity_leaves_the_mask_alone(name: str, image: np.ndarray, mask: np.ndarray) -> None:
    augment = build_augment(NONE.model_copy(update={name: 0.4}))
    changed = [augment(image, mask, seed) for seed in range(10)]
    assert all((moved == mask).all() for _, moved in changed)
    assert sum(bool((result != image).any()) for result, _ in changed) >= 3


def test_a_missing_channel_is_blank_and_is_one(image: np.ndarray, mask: np.ndarray) -> None:
    augment = build_augment(NONE.model_copy(update={"channel_dropout": 1.0}))
    dropped = set()
    for seed in range(12):
        changed, moved = augment(image, mask, seed)
        blank = [channel for channel in range(3) if not changed[..., channel].any()]
        assert len(blank) == 1
        others = [channel for channel in range(3) if channel not in blank]
        np.testing.assert_array_equal(changed[..., others], image[..., others])
        np.testing.assert_array_equal(moved, mask)
        dropped.update(blank)
    assert dropped == {0, 1, 2}


def test_copies_of_one_channel_stand_for_others(image: np.ndarray, mask: np.ndarray) -> None:
    augment = build_augment(NONE.model_copy(update={"channel_copy": 1.0}), ["T1", "T2", "FLAIR"])
    kept, seen = image.copy(), set()
    for seed in range(40):
        changed, moved = augment(image, mask, seed)
        replaced = tuple(channel for channel in (0, 1) if (changed[..., channel] == image[..., 2]).all())
        np.testing.assert_array_equal(moved, mask)
        for channel in {0, 1, 2} - set(replaced):
            np.testing.assert_array_equal(changed[..., channel], image[..., channel])
        seen.add(replaced)
    assert seen == {(0,), (1,), (0, 1)}
    np.testing.assert_array_equal(image, kept)


def test_the_chance_of_a_copy_is_what_was_asked_for(image: np.ndarray, mask: np.ndarray) -> None:
    augment = build_augment(NONE.model_copy(update={"channel_copy": 0.3}), LGG)
    changed = sum(bool((augment(image, mask, seed)[0] != image).any()) for seed in range(300))
    assert 60 <= changed <= 120
    others = build_augment(NONE.model_copy(update={"channel_copy": 1.0}), ["red", "green", "blue"])
    grey = image[..., :1]
    assert all((others(image, mask, seed)[0] == image).all() for seed in range(5))
    assert all((augment(grey, mask, seed)[0] == grey).all() for seed in range(20))


def test_a_blank_channel_is_not_copied(image: np.ndarray, mask: np.ndarray) -> None:
    both = build_augment(NONE.model_copy(update={"channel_copy": 1.0, "channel_dropout": 1.0}), LGG)
    for seed in range(60):
        changed, _ = both(image, mask, seed)
        assert sum(not changed[..., channel].any() for channel in range(3)) == 1


def test_without_any_change_nothing_changes(image: np.ndarray, mask: np.ndarray) -> None:
    changed, moved = build_augment(NONE)(image, mask, 1)
    np.testing.assert_array_equal(changed, image)
    np.testing.assert_array_equal(moved, mask)


def test_flips_are_flips(image: np.ndarray, mask: np.ndarray) -> None:
    changed, moved = build_augment(NONE.model_copy(update={"flip_horizontal": 1.0}))(image, mask, 1)
    np.testing.assert_array_equal(changed, image[:, ::-1])
    np.testing.assert_array_equal(moved, mask[:, ::-1])
    changed, _ = build_augment(NONE.model_copy(update={"flip_vertical": 1.0}))(image, mask, 1)
    np.testing.assert_array_equal(changed, image[::-1])


def test_what_comes_in_from_outside_is_black_and_no_tumour() -> None:
    augment = build_augment(NONE.model_copy(update={"shift": 0.4}))
    white, full = np.full((40, 56, 3), 255, np.uint8), np.ones((40, 56), np.uint8)
    for seed in range(10):
        changed, moved = augment(white, full, seed)
        assert (moved == 0).any()
        # in the mask's background nothing but an edge of interpolation
        assert np.median(changed[moved == 0]) == 0


def test_what_varies_varies_by_itself() -> None:
    """Whether a slice is flipped says nothing of whether it is deformed."""
    left = np.zeros((32, 32, 1), np.uint8)
    left[:, :8] = 255
    mask = np.zeros((32, 32), np.uint8)
    elastic = build_augment(NONE.model_copy(update={"flip_horizontal": 0.5, "elastic": 0.5}))
    seen = set()
    for seed in range(40):
        changed, _ = elastic(left, mask, seed)
        flipped = changed[..., 0].astype(int)[:, 20:].sum() > changed[..., 0].astype(int)[:, :12].sum()
        upright = left[:, ::-1] if flipped else left
        seen.add((bool(flipped), bool((changed != upright).any())))
    assert len(seen) == 4


def test_channels_move_alike_however_many_there_are(image: np.ndarray, mask: np.ndarray) -> None:
    augment = build_augment(NONE.model_copy(update={"rotate_deg": 30.0, "zoom": 0.2, "elastic": 0.5}))
    for seed in range(6):
        of_three, moved = augment(image, mask, seed)
        for channel in range(3):
            alone, again = augment(image[..., channel : channel + 1], mask, seed)
            np.testing.assert_array_equal(of_three[..., channel], alone[..., 0])
            np.testing.assert_array_equal(moved, again)


def test_an_elastic_field_is_as_strong_and_as_smooth_as_albumentations_own() -> None:
    found = []
    for kind in (A.ElasticTransform, GridElastic):
        transform = kind(alpha=60, sigma=8, p=1.0)
        fields = []
        for seed in range(20):
            transform.set_random_seed(seed)
            maps = transform.get_params_dependent_on_data({"shape": (128, 160, 3)}, {})
            assert maps["map_x"].shape == maps["map_y"].shape == (128, 160)
            assert maps["map_x"].dtype == maps["map_y"].dtype == np.float32
            fields += [maps["map_x"] - np.arange(160), maps["map_y"] - np.arange(128)[:, None]]
        inner = np.stack(fields)[:, 24:-24, 24:-24]  # at the edge a single pixel's noise is stretched outwards
        found.append([inner.std(), np.diff(inner, axis=1).std(), np.diff(inner, axis=2).std()])
    np.testing.assert_allclose(found[1], found[0], rtol=0.15)
