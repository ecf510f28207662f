"""Line drawings of a report as short data URIs."""

import re
from itertools import pairwise
from urllib.parse import quote

NUMBER = r"-?\d*\.?\d+(?![\d.e])"
PLACES = re.compile(rf'(?:[ ][xy]="|translate\(){NUMBER}(?: {NUMBER})?')
POINTS = re.compile(rf"([ML]) ({NUMBER} {NUMBER})((?: L {NUMBER} {NUMBER})+)")


def svg_uri(svg: str) -> str:
    """The URI of an SVG from matplotlib: paths and places to a hundredth of a point, lines relative
    to the point before, and quoted as text: with many lines half of its base64."""
    text = PLACES.sub(lambda place: _rounded(place[0]), re.sub(r"\s+", " ", svg))
    text = re.sub(r' d="[^"]*"', lambda path: shorter(path[0]), text)
    # What is left as it is means nothing in a URI or in an attribute of HTML.
    return f"data:image/svg+xml,{quote(text, safe=' =:/;,.()')}"


def shorter(path: str) -> str:
    """A path, as its attribute or alone, to the hundredth; errors do not add up over its lines."""
    return POINTS.sub(_relative, _rounded(path))


def _rounded(text: str) -> str:
    return re.sub(NUMBER, lambda number: _text(float(number[0])), text)


def _relative(match: re.Match[str]) -> str:
    points = [[float(x) for x in point.split()] for point in (match[2] + match[3]).split(" L ")]
    steps = [
        _text(after - before)
        for point, following in pairwise(points)
        for before, after in zip(point, following, strict=True)
    ]
    return f"{match[1]} {match[2]} l " + " ".join(steps).replace(" -", "-")


def _text(number: float) -> str:
    text = f"{round(number, 2) + 0.0:.2f}".rstrip("0").rstrip(".")
    return re.sub(r"^(-?)0\.", r"\1.", text)
