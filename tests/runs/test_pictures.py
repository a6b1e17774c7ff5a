"""Pictures: positions of the pixels of a grid, gray levels of values, and frames of a GIF."""

import io

import numpy as np
import pytest
from PIL import Image, ImageSequence

from score_sde_jax.runs import pictures


def random_images(num, height, width, channels, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num, height, width, channels), np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("num", "height", "width", "zoom", "columns", "rows"),
    [(1, 32, 32, 1, 1, 1), (5, 40, 36, 1, 3, 2), (7, 8, 8, 4, 3, 3), (12, 10, 20, 2, 4, 3), (2, 33, 9, 1, 2, 1)],
)
def test_image_i_of_a_grid_lies_in_row_i_over_columns(num, height, width, zoom, columns, rows, channels):
    images = random_images(num, height, width, channels)
    grid = np.asarray(pictures.grid(images)).reshape(rows * (zoom * height + 1) + 1, -1, channels)
    assert grid.shape[1] == columns * (zoom * width + 1) + 1
    left_over = np.ones(grid.shape[:2], bool)
    for i, image in enumerate(images):
        top, left = 1 + i // columns * (zoom * height + 1), 1 + i % columns * (zoom * width + 1)
        tile = grid[top : top + zoom * height, left : left + zoom * width]
        for y in range(zoom):  # every pixel has become a square of zoom by zoom
            for x in range(zoom):
                np.testing.assert_array_equal(tile[y::zoom, x::zoom], image)
        left_over[top : top + zoom * height, left : left + zoom * width] = False
    assert (grid[left_over] == 255).all()


@pytest.mark.parametrize(("num", "columns", "across"), [(7, None, 2), (4, 1, 1)])
def test_strips_lie_side_by_side(num, columns, across):
    """Image j of strip i, 8 by 8 pixels of 4 by 4: 3 strips of 3 are nearly square in 2 columns."""
    images = random_images(num * 3, 8, 8, 3).reshape(num, 3, 8, 8, 3)
    laid = np.asarray(pictures.strips(images, columns))
    width, height = 3 * 33 + 1, 34
    assert laid.shape == (3 + -(-num // across) * (height + 3), 3 + across * (width + 3), 3)
    for i, strip in enumerate(images):
        top, left = 3 + i // across * (height + 3) + 1, 3 + i % across * (width + 3) + 1
        for j, image in enumerate(strip):
            tile = laid[top : top + 32, left + 33 * j : left + 33 * j + 32]
            np.testing.assert_array_equal(tile, image.repeat(4, 0).repeat(4, 1))
            assert (laid[top : top + 32, left + 33 * j + 32] == 255).all()


def test_a_grid_of_so_many_columns():
    images = random_images(12, 32, 32, 1)
    laid = np.asarray(pictures.grid(images, columns=10))
    assert laid.shape == (2 * 33 + 1, 10 * 33 + 1)
    np.testing.assert_array_equal(laid[34:66, 1:33], images[10, ..., 0])


def test_a_png_gives_back_every_pixel(tmp_path):
    picture = Image.fromarray(random_images(1, 9, 7, 3)[0])
    pictures.save_png(tmp_path / "a.png", picture)
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.format == "PNG"
        np.testing.assert_array_equal(np.asarray(opened), np.asarray(picture))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(("num", "each"), [(1, 2000), (5, 800), (400, 20)])
def test_a_gif_shows_every_frame_in_order_and_rests_on_the_last(tmp_path, num, each):
    grays = [(40 * i + 10 * (i // 6)) % 251 for i in range(num)]
    frames = [Image.fromarray(np.full((8, 8), gray, np.uint8)) for gray in grays]
    pictures.save_gif(tmp_path / "a.gif", frames, seconds=4.0)
    with Image.open(tmp_path / "a.gif") as opened:
        assert opened.info.get("loop", 0) == 0
        shown = [(np.asarray(f.convert("L")), f.info["duration"]) for f in ImageSequence.Iterator(opened)]
    assert len(shown) == num
    for (actual, _), gray in zip(shown, grays, strict=True):
        np.testing.assert_array_equal(actual, np.full((8, 8), gray))
    assert [duration for _, duration in shown] == [each] * (num - 1) + [2000]


def plotted(monkeypatch):
    """The axes that the next picture is drawn on."""
    made, figure_of = [], pictures._figure
    monkeypatch.setattr(pictures, "_figure", lambda *size, **more: made.append(figure_of(*size, **more)) or made[-1])
    return made


@pytest.mark.parametrize("num", [0, 1, 11, 100])
def test_a_loss_curve_shows_the_rows_and_their_moving_mean(monkeypatch, num):
    made = plotted(monkeypatch)
    loss = np.random.default_rng(0).uniform(1.0, 2.0, num)
    levels = [[float(value), None, 3.0] for value in loss]
    rows = [
        {"step": 5 * (i + 1), "loss": float(value), "level_loss": level}
        for i, (value, level) in enumerate(zip(loss, levels, strict=True))
    ]
    assert pictures.loss_curve(rows).mode == "RGB"
    whole, per_level = made[0][1]
    lines = whole.get_lines()
    assert len(per_level.get_lines()) == (3 if num else 0)
    for line, value in zip(per_level.get_lines(), (loss, np.full(num, np.nan), np.full(num, 3.0)), strict=False):
        np.testing.assert_array_equal(line.get_ydata(), value)
    assert len(lines) == (num > 0) + (num > 10)
    if num:
        np.testing.assert_array_equal(lines[0].get_xydata(), [[row["step"], row["loss"]] for row in rows])
    if num > 10:
        x, y = lines[1].get_xydata().T
        width = num - len(x) + 1
        np.testing.assert_allclose(y, [loss[i : i + width].mean() for i in range(len(y))])
        np.testing.assert_array_equal(x, [row["step"] for row in rows][width - 1 :])


def test_points_and_arrows_are_where_they_are_said_to_be(monkeypatch):
    made = plotted(monkeypatch)
    rng = np.random.default_rng(0)
    samples, at, score = (rng.uniform(-2, 2, (num, 2)) for num in (30, 9, 9))
    pictures.points(samples, "title")
    picture = pictures.score_field(samples, at, score, 0.25)
    for _, axes in made:
        np.testing.assert_allclose(axes.collections[0].get_offsets(), samples)
    arrows = made[1][1].collections[1]
    np.testing.assert_allclose(np.stack([arrows.X, arrows.Y], 1), at)
    np.testing.assert_allclose(np.stack([arrows.U, arrows.V], 1), score)
    assert "0.25" in made[1][1].get_title()
    picture.save(io.BytesIO(), "PNG")


def test_curves_leave_gaps_where_a_bin_is_empty(monkeypatch):
    """Each value stands in the middle of its own bin."""
    monkeypatch.setattr(pictures, "_to_image", lambda figure: figure)
    figure = pictures.level_curves({"one": [1.0, None, 3.0, 4.0], "two": [None, 2.0, None, None]}, "loss")
    lines = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    assert lines == {"one": [[0.125, 1.0], [0.625, 3.0], [0.875, 4.0]], "two": [[0.375, 2.0]]}
