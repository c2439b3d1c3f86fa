"""Makes the page of one run, or of one learner, finished or not."""

from __future__ import annotations

from types import MappingProxyType

from everlora.analysis.recorded import RecordedRun
from everlora.core.plain import JsonObject
from everlora.report.analyses import of_run
from everlora.report.answers import answers_section, pack
from everlora.report.numbers import counted, points
from everlora.report.page import Page, Section
from everlora.report.questions import Questions
from everlora.report.run_cost import cost_section
from everlora.report.run_interference import interference_section
from everlora.report.run_scores import matrix_section, retention_section, tiles, transfer_section
from everlora.report.run_setup import data_section, history_section, next_section, setup_section
from everlora.report.run_training import curves_section, modules_section
from everlora.settings.spec import RunSpec


def run_page(run: RecordedRun, questions: Questions = MappingProxyType({})) -> Page:
    """Return the page of a run; ``questions`` are the texts of its test rows, as far as they are known."""
    packed = pack(run, questions)
    made: list[Section | None] = [
        matrix_section(run),
        retention_section(run),
        transfer_section(run),
        cost_section(run),
        curves_section(run),
        modules_section(run),
        interference_section(run),
        None if run.joint else of_run(run.path),
        answers_section(run, packed, questions),
        data_section(run),
        history_section(run),
        setup_section(run),
        next_section(run),
    ]
    data: JsonObject = {"record": _record(run)}
    if packed.data is not None:
        data["answers"] = packed.data
    return Page(
        title=f"{run.method} on {run.record.settings.model}",
        kind="a learner" if run.acts else "a run",
        subtitle=_subtitle(run),
        summary=_summary(run),
        alerts=_alerts(run),
        warnings=[f"{stage.facts.name}: {stage.facts.warning}" for stage in run.stages if stage.facts.warning],
        tiles=tiles(run),
        sections=[one for one in made if one is not None],
        data=data,
        files={},
    )


def _record(run: RecordedRun) -> JsonObject:
    """Return what is downloaded as JSON: matrix.json as it is, with the settings."""
    return {"settings": run.record.settings.model_dump(mode="json"), "results": run.results.plain()}


def _subtitle(run: RecordedRun) -> str:
    words, settings = [counted(len(run.tasks), "task")], run.record.settings
    if isinstance(settings, RunSpec):
        words.append(f"{settings.benchmark}, order {settings.order}" if settings.order else str(settings.benchmark))
    words.append(f"seed {settings.seed}")
    return " · ".join(words)


def _summary(run: RecordedRun) -> list[str]:
    """Say what was found in plain sentences."""
    oa, bwt = run.results.metrics.get("oa"), run.results.metrics.get("bwt")
    learned = run.results.metrics.get("learning_accuracy")
    if oa is None or not run.finished:
        return []
    when = "With all tasks learned at once" if run.joint else "After the last task"
    found = [f"{when} {points(oa)} % of answers are right, on average over {len(run.tasks)} tasks."]
    if bwt is not None and learned is not None:
        moved = f"lost {points(-bwt)} points" if bwt < 0 else f"gained {points(bwt)} points"
        moved = "lost nothing" if points(bwt) == "0.0" else moved
        found.append(
            f"Right after each was learned it was {points(learned)} %; since then the earlier tasks have {moved} on "
            f"average."
        )
    return found


def _alerts(run: RecordedRun) -> list[str]:
    """Say what a reader must know before any number."""
    found = []
    if not run.finished:
        unscored = len(run.stages) and not run.stages[-1].facts.row
        last = "; the last one was not scored yet" if unscored else ""
        found.append(f"Not finished: {run.learned} of {counted(len(run.tasks), 'task')} learned{last}.")
    return found
