"""igva: instruction-guided fusion of multi-layer vision features for vision-language models.

Importing it loads nothing, and has transformers know the model as soon as transformers is there;
the public names load when first used.
"""

from __future__ import annotations

import importlib
from typing import Any

from igva.registration import register_with_transformers

__version__ = "0.1.0"

# The functions are answer and build, so their modules cannot be: a submodule's name would replace the function's.
_PUBLIC = {
    "Answer": "igva.answering",
    "IgvaConfig": "igva.model.configuration_igva",
    "IgvaForConditionalGeneration": "igva.model.modeling_igva",
    "IgvaModel": "igva.model.modeling_igva",
    "IgvaProcessor": "igva.model.processing_igva",
    "UserError": "igva.errors",
    "answer": "igva.answering",
    "build": "igva.building",
    "fusion_names": "igva.model.fusions",
    "load": "igva.answering",
    "register_fusion": "igva.model.fusions",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'igva' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


register_with_transformers()
