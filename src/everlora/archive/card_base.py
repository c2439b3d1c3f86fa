"""Writes the lines of a card by which somebody without everlora sees whether a base model is the one of an adapter."""

from __future__ import annotations

from everlora.archive.records import BaseFilesRecord

WEIGHTS = ".safetensors"
PACKED = {
    "int8": ("torchao", "8 bits", "TorchAoConfig(Int8WeightOnlyConfig())"),
    "nf4": ("bitsandbytes", "4 bits", 'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")'),
}
"""Of a base model that was packed when it was loaded, by the settings' name for it: the library, into what, and how
``from_pretrained`` is asked for it."""


def packed_line(dtype: str) -> str:
    """Return a sentence on a base model that was packed when the adapter was trained; empty where it was not."""
    if dtype not in PACKED:
        return ""
    library, bits, config = PACKED[dtype]
    return (
        f"\nThe linear layers of the base model, but for its output layer, were packed by {library} into {bits} when "
        f"the adapter was trained (`quantization_config={config}` in `from_pretrained`); on plain weights it answers "
        f"a little otherwise.\n"
    )


def check_base_lines(base: str, files: BaseFilesRecord | None, *, on_hub: bool, revision: str | None = None) -> str:
    """Return a section that compares hashes of the base model's weights; empty where no file holds them.

    Args:
        base: what others call it: a folder, or an id of the Hub.
        files: what it was read from when the adapter was trained.
        on_hub: whether ``base`` is an id of the Hub.
        revision: of it.
    """
    digests = {name: digest for name, digest in files.digests.items() if name.endswith(WEIGHTS)} if files else {}
    if files and not digests and (packed := [name for name in files.digests if name.endswith(".gguf")]):
        return (
            f"\nThe adapter was trained on the weights of `{packed[0]}` (SHA-256 `{files.digests[packed[0]]}`), which "
            f"differ from those of {base} by their rounding.\n"
        )
    if not files or not digests:
        return ""
    at = revision or files.commit
    named = f", revision={at!r}" if at else ""
    place = f"Path(hf_hub_download({base!r}, name{named}))" if on_hub else f"Path({base!r}, name)"
    known = "".join(f"    {name!r}: {digest!r},\n" for name, digest in digests.items())
    fetch = "from huggingface_hub import hf_hub_download\n" if on_hub else ""
    return f"""
The adapter is for the very weights that it was trained on. Whether a base model has them:

```python
from hashlib import sha256
from pathlib import Path
{fetch}
known = {{
{known}}}
wrong = [name for name, digest in known.items() if sha256({place}.read_bytes()).hexdigest() != digest]
print(f"another base model: {{', '.join(wrong)}}" if wrong else "the base model is the one that it was trained on")
```
"""
