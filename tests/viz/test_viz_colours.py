import numpy as np
import pytest
import torch
from matplotlib import colormaps

from faithmap.viz import colourise, flaw, limits, scaled
from faithmap.viz.colours import COLORMAP


def test_scale_runs_from_the_lowest_to_the_highest_value():
    torch.testing.assert_close(scaled(torch.tensor([[2.0, 3.0, 6.0]])), torch.tensor([[0.0, 0.25, 1.0]]))


def test_what_speaks_against_the_score_is_unimportant():
    assert limits(torch.tensor([-3.0, -1.0, 0.0, 2.0])) == (0, 2)
    assert scaled(torch.tensor([-3.0, 0.0, 1.0, 2.0])).tolist() == [0, 0, 0.5, 1]
    assert limits(torch.tensor([-3.0, -1.0])) == (-3, -1)


def test_one_outlier_does_not_darken_the_rest():
    values = torch.cat([torch.linspace(0, 1, 999), torch.tensor([100.0])])
    low, high = limits(values)
    assert low == 0
    assert 0.99 < high <= 1
    assert scaled(values).max() == 1


def test_rare_values_are_not_cut_away_with_the_outliers():
    values = torch.zeros(1000)
    values[7] = 3
    assert limits(values) == (0, 3)


def test_small_map_keeps_its_highest_cell():
    assert limits(torch.arange(49.0).view(1, 7, 7)) == (0, 48)


def test_places_that_were_not_seen_have_no_say():
    values = torch.tensor([torch.nan, 1.0, 2.0, 3.0])
    assert limits(values) == (1, 3)
    torch.testing.assert_close(scaled(values), torch.tensor([torch.nan, 0.0, 0.5, 1.0]), equal_nan=True)


@pytest.mark.parametrize("factor", [1e-30, 1e-6, 1.0, 1e6, 1e30])
def test_scale_of_the_values_does_not_matter(factor):
    values = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(scaled(values * factor), scaled(values))


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5, 1e-20])
def test_constant_map_ranks_nothing(value):
    constant = torch.full((1, 7, 7), value)
    assert flaw(constant) == "one value everywhere: ranks nothing"
    with pytest.raises(ValueError, match="one value everywhere"):
        scaled(constant)


def test_rounding_of_a_resampled_constant_map_is_no_heat():
    constant = torch.full((1, 7, 7), 0.1)
    resampled = torch.nn.functional.interpolate(constant[None], (225, 301), mode="bilinear", align_corners=True)
    assert resampled.min() < resampled.max()
    assert flaw(resampled) is not None


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_rank_nothing(value):
    assert "not finite" in flaw(torch.tensor([0.0, 1.0, value]))


@pytest.mark.parametrize("values", [[torch.inf, 0.0, 1.0], [torch.nan, torch.nan], []])
def test_no_scale_without_finite_values(values):
    with pytest.raises(ValueError, match="ranks nothing"):
        limits(torch.tensor(values))


@pytest.mark.parametrize("ends", [(1.0, 1.0), (2.0, 1.0), (torch.nan, 1.0)])
def test_ends_of_the_scale_must_differ(ends):
    with pytest.raises(ValueError, match="ends of the scale"):
        scaled(torch.tensor([0.0, 1.0]), ends)


def test_given_ends_draw_maps_alike():
    assert scaled(torch.tensor([-1.0, 1.0, 9.0]), (0.0, 4.0)).tolist() == [0, 0.25, 1]


@pytest.mark.parametrize("name", [COLORMAP, "viridis", "tab10"])
def test_colours_are_those_of_matplotlib(name):
    values = torch.linspace(0, 1, 1001).view(1, 7, 143)
    expected = colormaps[name](values.numpy())[0, ..., :3]
    np.testing.assert_allclose(colourise(values, name)[0].permute(1, 2, 0).numpy(), expected, atol=1e-7)


def test_unknown_colormap():
    with pytest.raises(ValueError, match="colormap 'heat' is unknown"):
        colourise(torch.zeros(1, 2, 2), "heat")


def test_default_colours_become_brighter_step_by_step():
    ramp = colourise(torch.linspace(0, 1, 64).view(1, 1, 64))[0, :, 0]
    luma = (ramp * torch.tensor([0.2126, 0.7152, 0.0722]).view(3, 1)).sum(dim=0)
    assert bool((luma.diff() > 0).all())
