"""Figures keep what they show on their way into a page: paths, pictures, markers and letters."""

import base64
import io
import re

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from hamshoot.report.drawing import Drawings
from hamshoot.support.html import written


def figure(draw):
    made = Figure(figsize=(3, 2))
    draw(made.subplots())
    return made


def text_of(drawings, draw, title="t", description="d"):
    return written(drawings.svg(figure(draw), title, description))


def test_a_picture_is_the_same_picture_on_a_light_page():
    values = np.arange(12.0).reshape(3, 4)
    drawings = Drawings()
    text = text_of(drawings, lambda ax: ax.imshow(values, interpolation="none", cmap="gray"))
    (data,) = re.findall(r'href="data:image/png;base64,([^"]*)"', text)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L"), dtype=float)
    ordered = picture[:: max(1, len(picture) // 3)]
    assert picture.min() == 0
    assert picture.max() == 255
    assert ordered[0].mean() < ordered[-1].mean()  # row by row, the first one on top
    assert 'class="figure raster"' in text
    assert re.search(r"svg\.raster\{--c000000:#000000;", drawings.stylesheet())


def test_a_line_is_where_it_was():
    x, y = [0, 1, 2], [3, 1, 2]
    (path,) = re.findall(
        r'<path d="(M [^"]*)" clip-path="url\(#f1-', text_of(Drawings(), lambda ax: ax.plot(x, y)))
    points = np.array([[float(c) for c in pair.split()] for pair in re.split("[ML]", path)[1:]])
    assert points.shape == (3, 2)
    np.testing.assert_allclose(np.diff(points[:, 0]), np.diff(points[:, 0])[0], atol=0.02)
    rises = np.diff(points[:, 1])
    assert rises[1] < 0  # upwards
    np.testing.assert_allclose(rises, rises[1] * np.diff(y), rtol=1e-3)


def test_equal_styles_are_one_class_and_equal_letters_one_outline():
    drawings = Drawings()
    draw = lambda ax: ax.plot([0, 1], color="#0072B2", label="x")  # noqa: E731
    first, second = text_of(drawings, draw), text_of(drawings, draw)
    assert re.sub(r'\bf1-', "f-", first) == re.sub(r'\bf2-', "f-", second)
    assert drawings.stylesheet().count("stroke:var(--c0072b2)") == 1
    sheet = written(drawings.glyph_sheet())
    used = set(re.findall(r'href="#(DejaVu[^"]*)"', first))
    assert used
    assert all(sheet.count(f'id="{name}"') == 1 for name in used)
    assert "DejaVu" not in re.sub(r'href="#DejaVu[^"]*"', "", first)


def test_words_for_those_who_do_not_see_it_are_escaped():
    text = text_of(Drawings(), lambda ax: ax.plot([0, 1]), "<b>", "a & b")
    assert "<title id=\"f1-title\">&lt;b&gt;</title>" in text
    assert ">a &amp; b</desc>" in text
