"""Which bands and balls a search goes through, for particles and boxes of any size."""

import numpy as np
import pytest

from lfjax.tomography import schedule
from lfjax.tomography.schedule import NEAR, RADIUS, STARTING, Step, first_limit, more_bands, steps, steps_from


def test_starts_come_first_and_each_has_as_many_passes():
    found = steps(6, 3, 2, RADIUS, 32.0, 1000)
    coarse = [step for step in found if step.kind == "coarse"]
    assert found[: len(coarse)] == coarse and len(coarse) == 3 * STARTING
    assert [step.start for step in coarse] == list(np.repeat(range(3), STARTING))
    assert [step.turn for step in coarse] == 3 * list(range(STARTING))
    assert [i for i, step in enumerate(coarse) if step.last] == [STARTING * k - 1 for k in (1, 2, 3)]
    assert found[len(coarse)] == Step("whole", 6, whole=True)
    assert found[len(coarse) + 1 :] == steps_from(6, 2, RADIUS, 32.0, 1000)
    assert len(set(found)) == len(found)


def test_more_bands_only_add_passes():
    for near in range(1, len(NEAR)):
        few, many = steps_from(6, near, RADIUS, 64.0, 1000), steps_from(6, near + 1, RADIUS, 64.0, 1000)
        assert many[: len(few)] == few and len(many) > len(few)


def test_bands_grow_and_balls_shrink():
    found = steps_from(6, len(NEAR), RADIUS, 100.0, 1000)
    looked = [step for step in found if step.kind != "again"]
    assert (np.diff([step.limit for step in looked]) >= 0).all()
    widths = [step.width_rad for step in found if step.kind == "near"]
    assert (np.diff(widths) <= 0).all() and np.rad2deg(widths[0]) == pytest.approx(8)
    assert [step.kind for step in found].count("again") == 1
    again = [step.kind for step in found].index("again")
    assert {step.kind for step in found[:again]} == {"fine", "near"} and {step.kind for step in found[again + 1 :]} == {"near"}
    ends = [step for step in looked if step.last]
    assert len(ends) == len({step.limit for step in looked}) == len(schedule.GRIDS) + len(NEAR)


def test_all_images_are_searched_on_a_grid_before_the_balls():
    for start, radius, nyquist in [(6, RADIUS, 32.0), (10, RADIUS, 32.0), (6, RADIUS, 12.0), (14, 0.2, 16.0), (7, 0.3, 8.0)]:
        found = steps_from(start, 2, radius, nyquist, 1000)
        first = next(i for i, step in enumerate(found) if step.kind == "near")
        assert [step.whole for step in found[:first]] == [False] * (first - 1) + [True]
        assert all(step.whole for step in found[first:] if step.kind == "near")


@pytest.mark.parametrize("size", [8, 12, 15, 24, 25, 32, 33, 64])
@pytest.mark.parametrize("radius", [0.15, 0.25, 0.42])
def test_every_band_lies_below_the_nyquist_frequency(size, radius):
    nyquist = size / 2
    most = int(np.ceil(nyquist)) - 1
    start = first_limit(np.arange(most + 1) * 30.0, radius)
    near = 2
    while more_bands(near, 1.0, radius, nyquist):
        near += 1
    found = steps(start, 2, near, radius, nyquist, 1000)
    assert all(2 <= step.limit < nyquist for step in found)
    limits = [limit * RADIUS / radius for limit, _ in NEAR[2:]]
    assert near == 2 + sum(round(limit) < nyquist - 0.5 for limit in limits)


def test_a_small_box_is_searched_to_its_rim():
    assert max(step.limit for step in steps_from(6, 2, RADIUS, 12.0, 1000)) == 11
    assert max(step.limit for step in steps_from(6, 2, RADIUS, 12.5, 1000)) == 12
    assert max(step.limit for step in steps_from(6, 2, RADIUS, 16.0, 1000)) == 15


def test_bands_scale_with_the_size_of_the_particle():
    whole, half = (steps_from(6 * k, 2, RADIUS / k, 64.0, 1000) for k in (1, 2))
    assert [step.limit for step in half] == [2 * step.limit for step in whole]
    assert [step.width_rad for step in half] == [step.width_rad for step in whole]


def test_the_first_band_is_the_lowest_that_tells_enough():
    rising = np.arange(17) ** 2.0  # 60 nats at shell 8
    assert first_limit(rising, RADIUS) == 8
    assert first_limit(10 * rising, RADIUS) == 6  # enough at 3 already: the least band
    late = np.r_[np.zeros(9), np.linspace(0, 100, 8)]  # a CTF takes the low shells
    assert first_limit(late, RADIUS) == 10  # the largest
    weak = np.minimum(np.arange(17), 9) * 1.0  # 9 nats in all: 70 % of them by shell 7
    assert first_limit(weak, RADIUS) == 7
    assert first_limit(np.zeros(17), RADIUS) == 6
    assert first_limit(10 * np.arange(40) ** 2.0, RADIUS / 2) == 12
    assert first_limit(rising[:5], RADIUS) == 4  # of a box of 10 pixels
    assert first_limit(rising, RADIUS, 4) == 8 and first_limit(rising, RADIUS, 60) == 10  # an icosahedron is a ball below


def test_bands_go_on_while_the_rim_is_resolved():
    assert more_bands(2, 0.6, RADIUS, 64.0) and not more_bands(2, 0.4, RADIUS, 64.0)
    assert not more_bands(len(NEAR), 1.0, RADIUS, 64.0)
    assert not more_bands(2, 1.0, RADIUS, 16.0)  # band 20 in a box of 32 pixels
    assert more_bands(2, 1.0, RADIUS, 20.6)


def test_steps_compare_by_value():
    assert Step("near", 13, 1, width_rad=0.1) == Step("near", 13, 1, width_rad=0.1) != Step("near", 13, 2, width_rad=0.1)


def test_few_images_take_more_passes_in_ever_smaller_balls():
    few, some, many = (steps_from(6, 2, RADIUS, 32.0, count) for count in (10, 200, 1000))
    near = [step for step in few if step.kind == "near"]
    assert len(few) == len(many) + 2 * schedule.MORE and len(some) == len(many) + 2 * 3
    assert [step.modes for step in near] == [4] + [1] * (len(near) - 1)
    assert (np.diff([step.width_rad for step in near if step.limit == 16]) <= 0).all()


@pytest.mark.parametrize("pixels", [16, 17, 20, 24, 32])
@pytest.mark.parametrize("radius", [0.2, RADIUS, 0.49])
def test_every_band_fits_in_a_small_box(pixels, radius):
    told = np.linspace(0, 100, min(round(16 * RADIUS / radius), pixels // 2 - 1) + 1)
    start, near = first_limit(told, radius), 2
    while more_bands(near, 1.0, radius, pixels / 2):
        near += 1
    limits = [step.limit for step in steps(start, 1, near, radius, pixels / 2, 100)]
    assert min(limits) == limits[0] >= min(round(schedule.START[0] * RADIUS / radius), pixels // 2 - 1)
    assert 2 * max(limits) < pixels
