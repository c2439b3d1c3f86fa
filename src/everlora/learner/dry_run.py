"""Checks what can be seen to be wrong with a run that is not to be made yet."""

from __future__ import annotations

from everlora.adapters import check_layers
from everlora.adapters.layers import in_layers
from everlora.benchmarks import find_benchmark, is_own
from everlora.core.expressions import parse
from everlora.learner.experiment import rows_of
from everlora.models.architectures import FAMILIES, family_of
from everlora.models.layers import is_linear
from everlora.models.skeleton import skeleton
from everlora.settings.spec import RunSpec
from everlora.training.head_rate import check_head_rate, sets_head_rate


def check(spec: RunSpec) -> None:
    """Look up a run's benchmark, read what rows are on this machine, and count the layers of its model.

    No weights are loaded and nothing is fetched; layers are counted where the model's configuration is on the machine.

    Raises:
        EverloraError: they cannot be used.
    """
    if spec.data_dir is not None or is_own(spec.benchmark):
        rows_of(spec)
    else:
        find_benchmark(spec.benchmark).order(spec.order)
    if spec.lora.layers is not None:
        check_layers(parse(spec.method).adapter)
    elif not sets_head_rate(spec):
        return
    if (model := skeleton(spec.model, spec.revision)) is None:
        return
    check_head_rate(spec, FAMILIES[family_of(model.config)][1])
    if spec.lora.layers is not None:
        # Of all modules that could be adapted: what is refused here, the run refuses whichever of them are.
        in_layers(model, [name for name, layer in model.named_modules() if is_linear(layer)], spec.lora.layers)
