"""Writes report.html: the report of a bundle as one file.

It has no script, and refers to no other file except the tables beside it, so it looks the same as a file and under the
service's Content-Security-Policy.
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from schemas.evaluation import ClassMetrics, Metrics
from schemas.manifest import TrainingStep
from schemas.report_style import REPORT_STYLE

PAGE = "report.html"
_PICTURES = {
    "curves.png": "Training",
    "confusion_matrix.png": "Confusion matrix",
    "mistakes.png": "Mistakes",
    "predictions.png": "Predictions",
    "reliability.png": "Reliability",
    "coverage.png": "Coverage and accuracy by confidence threshold",
    "samples.png": "Training images, augmented",
}


def write_page(folder: Path, name: str, data: str, test: Metrics, steps: Sequence[TrainingStep] = ()) -> None:
    """Writes the page of a model's report from the files in the folder. Raises OSError."""
    pictures = [
        f"<h2>{title}</h2>\n{_picture(folder / file, title)}"
        for file, title in _PICTURES.items()
        if (folder / file).exists()
    ]
    tables = sorted(file.name for file in folder.glob("*.csv"))
    links = "".join(f'<li><a href="{table}">{table}</a></li>' for table in tables)
    network = folder / "model.txt"
    layers = (
        f"<h2>Network</h2>\n<details><summary>layers</summary>"
        f"<pre>{escape(network.read_text(encoding='utf-8'))}</pre></details>"
        if network.exists()
        else ""
    )
    title = escape(name if name == data else f"{name} on {data}")
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{REPORT_STYLE}</style>
</head>
<body>
<h1>{title}</h1>
<p>Measured on the test split, with the fp32 variant.</p>
{_summary(test)}
<h2>Classes</h2>
{_table(("class", "precision", "recall", "F1", "images"), map(_class_row, test.per_class))}
{_steps(steps)}
{chr(10).join(pictures)}
{layers}
<h2>Tables</h2>
<ul>{links}</ul>
</body>
</html>
"""
    (folder / PAGE).write_bytes(page.encode(errors="xmlcharrefreplace"))


def _summary(test: Metrics) -> str:
    rows = [("accuracy", f"{test.accuracy:.2%} (95% interval {test.accuracy_interval})")]
    rows += [
        (f"top-{each.k} accuracy", f"{each.accuracy:.2%} (95% interval {each.accuracy_interval})")
        for each in test.top_k
        if each.k > 1
    ]
    rows += [
        ("log loss", f"{test.log_loss:.4f}"),
        ("expected calibration error", f"{test.calibration.expected_calibration_error:.4f}"),
        ("images", f"{test.n:,}"),
    ]
    return _table(("metric", "value"), rows)


def _steps(steps: Sequence[TrainingStep]) -> str:
    if not steps:
        return ""
    rows = [
        (
            f"{step.name}{' (kept)' if step.kept else ''}",
            f"{step.validation_accuracy:.2%} (95% interval {step.validation_interval})",
            f"{step.validation_images:,}{f' in {step.folds} folds' if step.folds else ''}",
            f"{step.seconds:.1f}",
        )
        for step in steps
    ]
    return f"<h2>Steps of training</h2>\n{_table(('step', 'validation accuracy', 'images', 'seconds'), rows)}"


def _class_row(metrics: ClassMetrics) -> tuple[str, ...]:
    rates = (metrics.precision, metrics.recall, metrics.f1)
    return metrics.label, *(f"{rate:.2%}" for rate in rates), f"{metrics.support:,}"


def _table(head: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    columns = "".join(f'<th scope="col">{name}</th>' for name in head)
    lines = [f"<tr>{columns}</tr>"]
    for first, *others in rows:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in others)
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    return f"<table>\n{chr(10).join(lines)}\n</table>"


def _picture(file: Path, title: str) -> str:
    content = base64.b64encode(file.read_bytes()).decode()
    return f'<p><img alt="{title}" src="data:image/png;base64,{content}"></p>'
