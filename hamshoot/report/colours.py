"""Colours of the figures on a light and on a dark page.

Figures are drawn once, for a light page, in the colours of `hamshoot.study.looks`: each is one of
the palette or a blend of it with white. On a dark page the same share of a lighter twin is blended
with the dark background, so that what stands out on the one stands out on the other.
"""

from __future__ import annotations

import numpy as np

from hamshoot.study.looks import PALETTE

#: Backgrounds of the page; `style.css` has the same.
LIGHT_PAPER, DARK_PAPER = "#ffffff", "#15181e"
#: The palette on a dark page, in its order: each at a contrast of 4.5 or more with the background.
DARK_PALETTE = ("#4da6ee", "#f5854a", "#2dbd94", "#e09cc4", "#f2b43c", "#97d8fb", "#e9e7e2",
                "#f0e75e")
#: How far a blend may be from a palette's ray, per channel of 255, to count as on it.
APART = 2.5


def dark(colour: str) -> str:
    """The colour on a dark page that a colour on a light page stands for.

    Parameters
    ----------
    colour : str
        #rrggbb.

    Returns
    -------
    str
        Of blends of the palette with white, the same blend of the dark palette with the dark
        background; of any other colour, one of its hue as light as the other is dark.
    """
    rgb = channels(colour)
    for light_base, dark_base in zip(PALETTE, DARK_PALETTE, strict=True):
        base, white = channels(light_base), channels(LIGHT_PAPER)
        ray = white - base
        share = float(np.clip(ray @ (rgb - base) / (ray @ ray), 0, 1))
        if np.abs(base + share * ray - rgb).max() <= APART:
            return named((1 - share) * channels(dark_base) + share * channels(DARK_PAPER))
    # Turned about the middle grey, which keeps differences of channels and so the hue.
    low, high = rgb.min(), rgb.max()
    return named(np.clip(rgb + 255 - low - high, channels(DARK_PAPER).min(), 240))


def contrast(one: str, other: str) -> float:
    """Contrast of two colours by the WCAG, 1 to 21."""
    low, high = sorted(_luminance(colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def channels(colour: str) -> np.ndarray:
    """Red, green and blue of #rrggbb, 0 to 255."""
    return np.array([int(colour[k:k + 2], 16) for k in (1, 3, 5)], dtype=float)


def named(rgb: np.ndarray) -> str:
    """#rrggbb of red, green and blue."""
    return "#" + "".join(f"{round(float(value)):02x}" for value in rgb)


def _luminance(colour: str) -> float:
    share = channels(colour) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
