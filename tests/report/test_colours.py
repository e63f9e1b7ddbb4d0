"""Figures drawn for a light page stand out as much on a dark one."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from hamshoot.report.colours import DARK_PALETTE, DARK_PAPER, LIGHT_PAPER, contrast, dark
from hamshoot.report.page import _asset
from hamshoot.study.looks import GREY, PALETTE, lighter


def test_contrast_is_that_of_the_guidelines():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # a known value
    assert contrast("#123456", "#123456") == 1


@pytest.mark.parametrize("colour", PALETTE)
def test_the_palette_is_readable_on_the_dark_page(colour):
    assert dark(colour) == DARK_PALETTE[PALETTE.index(colour)]
    assert contrast(dark(colour), DARK_PAPER) >= 4.5


def test_paper_turns_into_paper_and_grey_stays_readable():
    assert dark(LIGHT_PAPER) == DARK_PAPER
    assert contrast(dark(GREY), DARK_PAPER) >= 4.5


@pytest.mark.parametrize("colour", PALETTE)
def test_a_blend_with_white_is_the_same_blend_with_the_dark_page(colour):
    """A faint line is as faint there; the order of lines from strong to faint stays."""
    contrasts = [contrast(dark(to_hex(lighter(colour, share))), DARK_PAPER)
                 for share in np.linspace(0, 1, 9)]
    assert np.all(np.diff(contrasts) < 0)
    assert contrasts[-1] == pytest.approx(1, abs=0.05)


def test_other_colours_keep_their_hue():
    turned = dark("#8b0000")
    red, green, blue = (int(turned[k:k + 2], 16) for k in (1, 3, 5))
    assert red > green + 50
    assert green == blue


def test_the_page_has_the_backgrounds_that_colours_are_made_for():
    style = _asset("style.css")
    assert f"--paper: {LIGHT_PAPER};" in style
    assert f"--paper: {DARK_PAPER};" in style
