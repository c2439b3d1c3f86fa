"""Makes the backends that put a trainable adapter on a base model: one file per form of adapter.

    form                    trained                                        backend
    plain, svd              PEFT LoRA pairs, or AdaLoRA triplets           lora
    directions              one LoRA direction per task, with magnitudes   directions   (hooks)
    dual                    two LoRA adapters under input gates            dual         (hooks)
    osf                     the small singular directions of a weight      osf          (hooks)
    full                    all weights                                    full
    prompt, -chain, -pool   soft prompts                                   prompt, prompt_chain, prompt_pool

The form is chosen by the method's `everlora.core.adapter.Adapter`; `make_backend` finds the backend for it.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from everlora.adapters.base import AdapterBackend, LoraInput, PastAs
from everlora.adapters.layers import restrict
from everlora.core.adapter import Adapter
from everlora.core.errors import ConfigError, nearest
from everlora.models.loading import Loaded
from everlora.settings.lora import OF_PAIRS, OF_TARGETS

if TYPE_CHECKING:
    from everlora.adapters.hooked import HookedBackend

__all__ = ["AdapterBackend", "HookedBackend", "check_layers", "make_backend"]


def __getattr__(name: str) -> Any:
    if name != "HookedBackend":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # PEFT is imported with it, which whoever only reads adapters' files need not wait for.
    return importlib.import_module(f"{__name__}.hooked").HookedBackend


def make_backend(base: Loaded, lora: LoraInput, past_as: PastAs, adapter: Adapter) -> AdapterBackend:
    """Return the backend that trains the form of ``adapter`` on ``base``, not attached yet.

    >>> import everlora
    >>> base = everlora.load("tiny-llama")
    >>> backend = make_backend(base, {"r": 4}, "auto", everlora.parse("seqlora").adapter)
    >>> model = backend.attach(seed=0)
    >>> {name.split(".")[-1]: tuple(update.A.shape) for name, update in backend.trainable().items()}
    {'q_proj': (4, 64), 'v_proj': (4, 64)}
    >>> backend.detach()

    Args:
        base: the loaded base model.
        lora: settings by PEFT's own names (``r``, ``lora_alpha``, ``target_modules``, …).
        past_as: how earlier tasks' updates are carried; see `AdapterBackend`.
        adapter: the form and its settings.

    Raises:
        ConfigError: no backend handles the form, or a setting means nothing to it.
    """
    # A new form is found by its file alone: importing the files defines the classes.
    for found in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{found.name}")
    kinds = {form: kind for kind in _subclasses(AdapterBackend) for form in kind.forms}  # type: ignore[type-abstract]
    if adapter.form not in kinds:
        raise ConfigError(
            f"no backend handles the adapter form {adapter.form!r}{nearest(adapter.form, kinds)}; a form of your own "
            f"needs a subclass of AdapterBackend whose forms name it"
        )
    kind = kinds[adapter.form]
    # Refused and not ignored: whoever sets it would believe that it acts, and report it.
    strange = sorted((OF_TARGETS | OF_PAIRS) & lora.keys() - kind.lora_settings(adapter.form))
    if strange:
        raise ConfigError(
            f"the LoRA setting {strange[0]!r} means nothing to the adapter form {adapter.form!r} of this method; "
            f"leave it out"
        )
    if "layers" in lora:
        from everlora.adapters.hooked import target_layers

        check_layers(adapter)
        lora = restrict(base.model, lora, lambda lora: target_layers(base.model, base, lora))
    return kind(base, lora, past_as, adapter)


def check_layers(adapter: Adapter) -> None:
    """Refuse chosen layers for a form that stands in none.

    Raises:
        ConfigError: whole weights, or prompts, are trained.
    """
    if adapter.whole_model or adapter.form.startswith("prompt"):
        nouns = "{}s{}{}".format(*adapter.noun.partition(" of "))  # sets of weights
        raise ConfigError(
            f"layers say where adapters stand, and here {nouns} are trained; leave out --lora-layers, or say all"
        )


def _subclasses(kind: type[AdapterBackend]) -> list[type[AdapterBackend]]:
    """Return all subclasses of ``kind``, direct and indirect."""
    return [one for child in kind.__subclasses__() for one in (child, *_subclasses(child))]
