"""The page of a study: one HTML file that needs nothing else. In: a plan and its trials. Out: HTML.

figures.py     what is drawn, as JSON of plotly.js; parallel.py has the parallel coordinates
scale.py       where values lie on an axis
importance.py  how much each path matters, by Optuna
sections.py    the text around the figures; table.py has the table of all trials
markup.py      what both are made of
page.js        draws the figures in the reader's colors, sorts and filters the table
page.css       both sets of colors
"""

from collections.abc import Sequence
from html import escape
from importlib.resources import files

from plotly.offline import get_plotlyjs

from raystack import strict_json
from raystack.plan.tuning import TunePlan
from raystack.tuning.page import figures, sections
from raystack.tuning.page.importance import Shares, importance
from raystack.tuning.page.parallel import parallel
from raystack.tuning.page.table import table
from raystack.tuning.record import Trial

# Nothing is asked for, whatever is in the page: a browser refuses.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def write_page(plan: TunePlan, trials: Sequence[Trial]) -> str:
    """Return the study's page."""
    shares = importance(plan, trials)
    drawn = _drawn(plan, trials, shares) if trials else {}
    parts = [sections.heading(plan, trials), sections.best(plan, trials), *sections.why(trials)]
    if drawn:
        parts += sections.drawings(plan, drawn, shares)
    parts.append(table(plan, trials))
    return _document(f"Study {plan.name}", "\n".join(parts), drawn)


def _drawn(plan: TunePlan, trials: Sequence[Trial], shares: Shares) -> dict[str, figures.Figure]:
    """Return the figures that have something to show, by the names that sections.py and page.js know."""
    drawn = {"parallel": parallel(plan, trials)}
    for index, objective in enumerate(plan.objectives):
        drawn[f"history-{index}"] = figures.history(plan, trials, objective)
        curves = figures.curves(plan, trials, objective)
        if curves["data"]:
            drawn[f"curves-{index}"] = curves
    drawn |= {f"front-{index}": each for index, each in enumerate(figures.fronts(plan, trials))}
    if isinstance(shares, dict):
        drawn["importance"] = figures.bars(shares)
    return drawn


def _document(title: str, body: str, drawn: dict[str, figures.Figure]) -> str:
    data = strict_json.dumps(drawn, ensure_ascii=False).replace("<", "\\u003c")
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{_own("page.css")}</style>
</head>
<body>
<main>
{body}
</main>
<noscript>The figures need JavaScript.</noscript>
<script>{get_plotlyjs()}</script>
<script type="application/json" id="figures">{data}</script>
<script>{_own("page.js")}</script>
</body>
</html>
"""


def _own(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
