"""Line drawings of a report: shorter, and still the same lines."""

import io
import re
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis.report_page.vectors import shorter, svg_uri

KIND = "data:image/svg+xml,"


def drawing(points: int) -> str:
    figure = Figure()
    axes = figure.add_subplot()
    axes.plot(np.random.default_rng(0).normal(size=points), gid="noise")
    with io.StringIO() as file:
        figure.savefig(file, format="svg")
        return file.getvalue()


def points_of(path: str) -> np.ndarray:
    """Absolute points [n, 2] of a path of M, L and l, as the SVG standard reads them."""
    points: list[np.ndarray] = []
    for command, text in re.findall(r"([MLl])([^MLl]*)", path):
        numbers = [float(n) for n in re.findall(r"-?(?:\d+\.?\d*|\.\d+)", text)]
        for pair in np.reshape(numbers, (-1, 2)):
            points.append(points[-1] + pair if command == "l" else pair)
    return np.array(points)


def noise_of(svg: str) -> str:
    (group,) = [g for g in ElementTree.fromstring(svg).iter() if g.get("id") == "noise"]
    (path,) = group.iter("{http://www.w3.org/2000/svg}path")
    return path.get("d", "")


def test_a_shortened_line_has_the_same_points_to_the_hundredth() -> None:
    svg = drawing(2000)
    uri = svg_uri(svg)
    before, after = points_of(noise_of(svg)), points_of(noise_of(unquote(uri.removeprefix(KIND))))
    assert len(before) > 1000
    # Over all points, so that rounding does not add up.
    np.testing.assert_allclose(after, before, rtol=0, atol=0.00501)
    assert len(uri) < 0.62 * len(svg)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("M 1 2 L 3 4 ", "M 1 2 l 2 2 "),
        ("M 10.126 2 L 10.124 1.5 L 0 1.499 ", "M 10.13 2 l -.01-.5-10.12 0 "),
        ("M 0.5 -0.001 L 0.5 3 z M 1 1 L 2 2 ", "M .5 0 l 0 3 z M 1 1 l 1 1 "),
        # Glyphs have curves, which stay, and so does a move without a line.
        ("M 60 48 Q 1 2 3 4 L 5 6 L 8 5 C 1 2 3 4 ", "M 60 48 Q 1 2 3 4 L 5 6 l 3-1 C 1 2 3 4 "),
        ("M 1 2 ", "M 1 2 "),
        ("M 2 3 L 5 1e-5 L 7 8 ", "M 2 3 L 5 1e-5 L 7 8 "),  # not from matplotlib; left alone
        ("", ""),
    ],
)
def test_paths_are_shortened(path: str, expected: str) -> None:
    assert shorter(path) == expected


def test_places_are_rounded_and_nothing_else() -> None:
    place = '<use x="1.23456" y="-0.5"/><g transform="translate(20.004 3.999) scale(0.07 -0.07)"/>'
    short = '<use x="1.23" y="-.5"/><g transform="translate(20 4) scale(0.07 -0.07)"/>'
    name = '<path id="x-1.2345"/>'
    assert unquote(svg_uri(place + name)).removeprefix(KIND) == short + name


def test_the_uri_is_quoted_for_an_attribute() -> None:
    uri = svg_uri('<svg a="1&amp;2">#\n  50 %</svg>')
    assert uri == f"{KIND}%3Csvg a=%221%26amp;2%22%3E%23 50 %25%3C/svg%3E"
