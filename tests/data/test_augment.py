"""The fast shift against a slow one: pad by repeating the border, then crop."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hilserl.data.augment import ShiftableImages


def pad_and_crop(image: np.ndarray, down: int, right: int, largest: int) -> np.ndarray:
    height, width, _ = image.shape
    padded = np.pad(image, ((largest, largest), (largest, largest), (0, 0)), mode="edge")
    return padded[largest + down : largest + down + height, largest + right : largest + right + width]


def filled(seed: int, capacity: int, shape: tuple[int, int, int], largest: int) -> tuple[ShiftableImages, np.ndarray]:
    images = np.random.default_rng(seed).integers(0, 256, (capacity, *shape), np.uint8)
    stored = ShiftableImages(capacity, shape, largest)
    for row, image in enumerate(images):
        stored[row] = image
    return stored, images


@given(
    seed=st.integers(0, 99),
    capacity=st.integers(1, 4),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4)),
    largest=st.integers(1, 6),  # also larger than the image
    batch=st.integers(0, 12),
)
@settings(max_examples=200, deadline=None)
def test_a_shift_is_padding_and_cropping(seed: int, capacity: int, shape: tuple[int, int, int], largest: int, batch: int) -> None:
    stored, images = filled(seed, capacity, shape, largest)
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, capacity, batch)
    down, right = rng.integers(-largest, largest + 1, (2, batch))
    shifted = stored.shifted(rows, down, right)
    assert shifted.shape == (batch, *shape) and shifted.dtype == np.uint8
    for row, y, x, image in zip(rows, down, right, shifted, strict=True):
        np.testing.assert_array_equal(image, pad_and_crop(images[row], y, x, largest))


def test_every_shift_of_every_corner_of_the_storage() -> None:
    """The first and the last image, by all 81 shifts: where reading from another place could leave the storage."""
    stored, images = filled(0, 3, (5, 7, 3), 4)
    down, right = (grid.ravel() for grid in np.meshgrid(np.arange(-4, 5), np.arange(-4, 5)))
    for row in (0, 2):
        shifted = stored.shifted(np.full(81, row), down, right)
        expected = [pad_and_crop(images[row], y, x, 4) for y, x in zip(down, right, strict=True)]
        np.testing.assert_array_equal(shifted, expected)


def test_what_was_stored_is_read_back_and_overwritten_completely() -> None:
    stored, images = filled(1, 3, (6, 5, 3), 4)
    stored[1] = images[2]
    np.testing.assert_array_equal(stored[1], images[2])
    np.testing.assert_array_equal(stored[0], images[0])
    np.testing.assert_array_equal(stored.shifted(np.array([1]), np.array([0]), np.array([-4]))[0], pad_and_crop(images[2], 0, -4, 4))


def test_all_shifts_are_equally_likely_and_the_axes_independent() -> None:
    height = width = 9
    image = np.stack(np.broadcast_arrays(np.arange(height)[:, None], np.arange(width)[None]), axis=2).astype(np.uint8)
    stored = ShiftableImages(1, (height, width, 2), 4)
    stored[0] = image
    draws = 40_500
    shifted = stored.randomly_shifted(np.zeros(draws, np.int64), np.random.default_rng(0))
    centre = shifted[:, 4, 4].astype(int)  # tells its own place, hence the shift
    counts = np.bincount(centre[:, 0] * 9 + centre[:, 1], minlength=81)
    expected = draws / 81
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert 40 < chi_square < 130  # 80 degrees of freedom: 80 +- 12.6


def test_the_generator_decides_the_shifts() -> None:
    stored, _ = filled(2, 4, (12, 12, 3), 4)
    rows = np.arange(4)
    first, again, other = (stored.randomly_shifted(rows, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert (first == again).all() and (first != other).any()
