"""Runs tasks of lm-evaluation-harness on the model in memory, through its Python interface; an optional extra.

A task is a name that the harness knows, or a task file of one's own (``questions.yaml``; its data may be on disk). Of
its results the first of `METRICS` counts, in percent; the column is ``task/metric``. A task with none of these metrics
is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from everlora.core.errors import ConfigError, DataError, nearest
from everlora.models.families.heads import unwrap_model
from everlora.models.loading import Loaded

METRICS = ("acc_norm", "acc", "exact_match", "f1")
INSTEAD = "--general builtin needs no download"


def check(tasks: Sequence[str]) -> None:
    """Refuse, before anything is measured, tasks that cannot be run.

    Raises:
        ConfigError: the package is not installed, or has no such task, or there is no such file.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise ConfigError(f"general ability by lm-eval needs lm_eval: install everlora[lm-eval]; {INSTEAD}") from None
    known = TaskManager().all_tasks
    for task in tasks:
        if _own(task):
            if not Path(task).is_file():
                raise ConfigError(f"{task}: there is no such task file of lm-evaluation-harness")
        elif task not in known:
            raise ConfigError(f"lm-evaluation-harness has no task {task!r}{nearest(task, known)}")


def measure(model: nn.Module, base: Loaded, tasks: Sequence[str], batch_size: int) -> dict[str, float]:
    """Measure the score of each task in percent, by ``task/metric``.

    Raises:
        DataError: the harness fails, because its data are out of reach, say.
    """
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    was_training = model.training
    try:
        wrapped = HFLM(
            pretrained=unwrap_model(model),
            tokenizer=copy.deepcopy(base.family.processor),  # it may be given a token for padding
            backend="causal" if base.family.name == "decoder" else "seq2seq",
            batch_size=batch_size,
            max_length=base.family.limits.context,
        )
        found = {
            task: lm_eval.simple_evaluate(model=wrapped, tasks=[task], bootstrap_iters=0, log_samples=False)["results"]
            for task in tasks
        }
    except Exception as error:  # whatever a library far away makes of missing data, the user needs one line
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise DataError(f"lm-evaluation-harness cannot run {', '.join(tasks)}: {first}; {INSTEAD}") from error
    finally:
        model.train(was_training)
    named = {(next(iter(found[task]), task) if _own(task) else task): found[task] for task in tasks}
    return dict(percent(name, results.get(name, {})) for name, results in named.items())


def _own(task: str) -> bool:
    """Return whether a task is a file instead of a name."""
    return task.endswith((".yaml", ".yml"))


def percent(task: str, results: Mapping[str, float | str]) -> tuple[str, float]:
    """Return column and value of one task of the harness's ``results``, whose keys are ``metric,filter``.

    >>> percent("piqa", {"acc,none": 0.25, "acc_norm,none": 0.5})
    ('piqa/acc_norm', 50.0)

    Raises:
        DataError: none of `METRICS` is among them.
    """
    for metric in METRICS:
        for key, value in results.items():
            if key.partition(",")[0] == metric:
                return f"{task}/{metric}", 100.0 * float(value)
    raise DataError(f"lm-evaluation-harness reports none of {', '.join(METRICS)} for {task}; choose another task")
