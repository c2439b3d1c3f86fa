"""Hands a learner on to other tools: what each of them takes, and the command that serves it there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from everlora.core.errors import ConfigError
from everlora.export.targets import Target

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What ``--max-lora-rank`` of vLLM may be; 16 where it is left out."""
CONVERTER = "convert_hf_to_gguf.py"
"""Of llama.cpp; it makes a GGUF file of a transformers folder."""


def vllm_rank(rank: int) -> int:
    """Return the least rank that vLLM reserves in which an adapter of ``rank`` fits.

    >>> vllm_rank(8), vllm_rank(24), vllm_rank(300)
    (8, 32, 320)

    Raises:
        ConfigError: it takes none that large.
    """
    found = next((one for one in VLLM_RANKS if one >= rank), None)
    if found is None:
        raise ConfigError(
            f"vLLM takes adapters of rank {VLLM_RANKS[-1]} at most, and this one has {rank}; pass --rank"
        )
    return found


def default_rank(target: Target, total: int) -> int:
    """Return the rank at which an adapter is written: that of everything learned, as far as the target takes it.

    >>> default_rank("peft", 24), default_rank("vllm", 900)
    (24, 512)
    """
    return min(total, VLLM_RANKS[-1]) if target == "vllm" else total


def serving_lines(
    target: Target, folder: Path, base: str, name: str, rank: int | None, revision: str | None = None
) -> list[str]:
    """Return the commands that serve what was written to ``folder``.

    Args:
        target: who is to serve it.
        folder: what was written.
        base: what others call the base model.
        name: what the learner is to be called.
        rank: of the adapter; None of a merged model.
        revision: of the base model; None where nobody knows one.
    """
    if target == "vllm" and rank is not None:
        at = f" --revision {revision}" if revision else ""
        return [
            f"vllm serve {base}{at} --enable-lora --max-lora-rank {vllm_rank(rank)} --lora-modules {name}={folder}",
        ]
    if target == "llama-cpp":
        gguf = folder.with_name(f"{folder.name}.gguf")
        return [
            f"python {CONVERTER} {folder} --outfile {gguf} --outtype f16",
            f"llama-server -m {gguf}",
            f"echo 'FROM {gguf.absolute()}' > Modelfile && ollama create {name} -f Modelfile",
        ]
    return [f"vllm serve {folder} --served-model-name {name}"] if target == "merged" else []


def convert(folder: Path) -> Path | None:
    """Let llama.cpp's own converter make a GGUF file of a merged model; None where it is not installed.

    Raises:
        ConfigError: it fails.
    """
    if (place := shutil.which(CONVERTER)) is None:
        return None
    gguf = folder.with_name(f"{folder.name}.gguf")
    done = subprocess.run(
        [place, str(folder), "--outfile", str(gguf), "--outtype", "f16"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        why = " ".join(done.stderr.split())[-300:]
        raise ConfigError(f"{CONVERTER} cannot convert {folder}: {why}; the model in {folder} is whole")
    return gguf
