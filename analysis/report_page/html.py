"""From what a report holds to the text of its page."""

from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from analysis.report_page.contents import Report


def html(made: Report) -> str:
    """The page: everything is in it, and it asks no other machine for anything."""
    pages = Environment(
        loader=PackageLoader("analysis.report_page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = resources.files("analysis.report_page").joinpath("templates/report.css").read_text()
    template = pages.get_template("report.html.j2")
    return template.render(report=made, style=style, plotly=get_plotlyjs())
