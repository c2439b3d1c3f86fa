"""Defines what a learner's folder says of every task: its card, how it was trained, and how it was scored."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, JsonValue

from everlora.archive.forecast import Forecast
from everlora.archive.records import Fingerprint, Holdings, Score, Seconds, Strength, WrittenRows
from everlora.archive.schema import Record, loaded, renamed
from everlora.core.plain import JsonObject


class TestFile(Record):
    """Holds where the test rows of a task were read, so that they can be read again while they are the same.

    Attributes:
        path: absolute.
        sha256: of the file.
        columns: other names of columns, see `everlora.data.columns.ColumnNames`.
    """

    path: str
    sha256: str
    columns: dict[str, str] = Field(default_factory=dict)


class TaskCard(Record):
    """Holds what a task is, without its rows: all that is needed to answer it, to go on after it and to judge it.

    Attributes:
        form, instruction, labels, shared_labels, prompt_limit, source: see `everlora.data.task.Task`.
        template: of the prompt.
        rows: how many there were, by split.
        special: special tokens that stand in its targets, by name.
        tests: digest of its test rows.
        test: how to read its test rows again; None where nobody said where they are.
        turns: which answers of a chat were learned, ``last`` or ``all``.
    """

    form: str = "labelled"
    instruction: str = ""
    labels: list[str] = Field(default_factory=list)
    shared_labels: bool | None = None
    prompt_limit: int | None = None
    source: str = ""
    template: str | None = None
    rows: dict[str, int] = Field(default_factory=dict)
    special: list[str] = Field(default_factory=list)
    tests: str | None = None
    test: TestFile | None = None
    turns: str = "last"


class HistoryEntry(Record):
    """Holds when, by whom and why a task was taught, and what was set for it alone.

    Attributes:
        date: UTC, ISO 8601.
        by: who taught it, if they said so.
        because: why, in their words.
        train: training arguments that are the task's own.
        everlora: version.
    """

    date: str
    by: str | None = None
    because: str | None = None
    train: dict[str, JsonValue] = Field(default_factory=dict)
    everlora: str | None = None


class TaskMetadata(Record):
    """Holds what is known of the tasks that a stage learns, by their names.

    Attributes:
        data: digests of rows, labels, instruction and metric.
        chance: percent of guessing, where it is known.
        metric: how answers are scored, where it is not the default.
        left_out: how many rows of the source are not in the task, by reason.
        max_new_tokens: the length of free answers, where the targets made it longer than 50 tokens.
        label_rows: rows of a classification head that stand for the labels, in their order.
        cards: of each task; not there in folders of schema 2 and before.
    """

    data: dict[str, str]
    chance: dict[str, float] = Field(default_factory=dict)
    metric: dict[str, str] = Field(default_factory=dict)
    left_out: dict[str, dict[str, int]] = Field(default_factory=dict)
    max_new_tokens: dict[str, int] = Field(default_factory=dict)
    label_rows: dict[str, list[int]] = Field(default_factory=dict)
    cards: dict[str, TaskCard] = Field(default_factory=dict)


class ProbedRise(Record):
    """Holds what rows of earlier tasks that are stored to be looked at showed of a budget's prediction.

    Attributes:
        losses: by task, of its stored rows when the stage ended, in nats.
        real_rise: what the mean losses of all earlier tasks together rose by in this stage; None of the first.
        error: standard error of that, as so few rows show it.
        calibration: by which the prediction was multiplied meanwhile: how far off those before had been.
    """

    losses: dict[str, list[float]]
    real_rise: float | None = None
    error: float = 0.0
    calibration: float = 1.0


class SpentBudget(Record):
    """Holds what a task was allowed to cost the earlier ones, and what it did on the rows at hand.

    Attributes:
        may_lose: mean drop of their scores that was allowed, points.
        share: of the update that was taken.
        lost, error: the drop on those rows, and its standard error, points.
        rows: how many they were.
        forced: whether it was taken although no part of it stays within the budget.
        forecast: whether the drop was forecast, since there were no rows.
    """

    may_lose: float
    share: float
    lost: float
    error: float
    rows: int
    forced: bool = False
    forecast: bool = False


class ScoreFacts(Record):
    """Holds how a stage was scored.

    Attributes:
        row: of the matrix; empty before anything was scored.
        fingerprint: how it was made.
        general: measures of general ability, where it is measured.
    """

    row: list[Score] = Field(default_factory=list)
    fingerprint: Fingerprint | None = None
    general: dict[str, float] | None = None


class KeptRows(Record):
    """Holds how many test rows of tasks were kept after they were learned, and when."""

    date: str
    rows: dict[str, int]


class Scored(ScoreFacts):
    """Holds what an evaluation says of itself.

    Attributes:
        seconds: how long answering took.
        warning: what was found amiss in the answers.
        counts: how many rows there are to be answered of each task, in the order of learning.
        kept: test rows that were kept since the task was learned.
    """

    seconds: float
    warning: str | None = None
    counts: list[int] = Field(default_factory=list)
    kept: list[KeptRows] = Field(default_factory=list)


class StageFacts(TaskMetadata, ScoreFacts):
    """Holds what a finished stage says of itself.

    Attributes:
        labels: of the trained head, by row.
        seconds: how long it took; one number where nothing is trained.
        warning: what the learner found amiss.
        strengths: those that penalties have found, by part.
        predicted_rise: nats per row that the losses of all earlier tasks together are predicted to have risen by when
            the task was learned; None where no part predicts that.
        probed: the same as it really was, where a budget has ``probes``.
        epochs: that the task's number of rows made, where the settings have neither epochs nor steps.
        cut: training texts that were cut to the longest that is read.
        stored_rows, stored_row_bytes: rows of the task that are kept, to be learned again or to be looked at.
        written_rows: by earlier task, what the model wrote of it; None where it writes nothing.
        holdings: what the learner holds now.
        history: who taught it, when and why.
        within: name of the later task whose update holds that of this one, too, since both were compacted.
        spent: of a budget of forgetting, if there was one.
        forecast: what earlier tasks were expected to lose, before the first step; None where nobody asked.
    """

    labels: list[str]
    seconds: Seconds | float
    warning: str | None
    strengths: dict[str, Strength]
    cut: int
    predicted_rise: float | None = None
    probed: ProbedRise | None = None
    epochs: int | None = None
    stored_rows: int = 0
    stored_row_bytes: int = 0
    written_rows: dict[str, WrittenRows] | None = None
    holdings: Holdings | None = None
    history: HistoryEntry | None = None
    within: str | None = None
    spent: SpentBudget | None = None
    forecast: Forecast | None = None


class BaselineFacts(Record):
    """Holds what was measured before the first task: scores of the base model, and digests of its answers."""

    base: dict[str, float]
    data: dict[str, str]
    fingerprint: Fingerprint | None = None
    general: dict[str, float] | None = None


class Seal(Record):
    """Holds what every COMMIT says first: whose it is, and the hashes of the other files of its folder."""

    run: str
    number: int
    name: str
    files: dict[str, str]

    @classmethod
    def migrated(cls, content: JsonObject, path: Path) -> JsonObject:
        content = renamed(content)
        if content.get("schema") == 4:
            return content
        if "run" not in content:  # schema 1
            content["run"] = loaded(path.parents[2] / "run.yaml")["id"]
        # Schema 2: the commit of a stage that trains nothing had no entries of training.
        if "prompts" in content:  # schema 3
            content["cards"] = content.pop("prompts")
        return {"warning": None, "strengths": {}, "cut": 0, **content}


class Commit(StageFacts, Seal):
    """Holds what tasks/NN-name/COMMIT says of a trained stage; how it was scored stands in its `Evaluation`.

    Folders of schema 3 and before have both in one file.
    """

    @classmethod
    def migrated(cls, content: JsonObject, path: Path) -> JsonObject:
        if content.get("schema") != 4:
            content["row"]  # nothing was committed before it was scored: without it, the file has lost something
        return super().migrated(content, path)


class Evaluation(Scored, Seal):
    """Holds what tasks/NN-name/evaluation-K/COMMIT says of how a stage was scored; the highest K counts."""


class Baseline(BaselineFacts, Seal):
    """Holds what before/COMMIT says was measured before the first task."""
