"""Names the tools that a learner is handed on to."""

from __future__ import annotations

from typing import Literal

Target = Literal["peft", "merged", "vllm", "llama-cpp"]
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Types of a merged model, as torch calls them."""
