"""The only place that tells transformers' Auto classes about igva: the moment transformers is there, and not before.

``import igva`` alone loads neither transformers nor torch, and still ``AutoModel.from_pretrained`` knows the model.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

LIBRARY = "transformers"


def register() -> None:
    """Register config, models and processor; calling it again changes nothing."""
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoProcessor,
    )

    from igva.model.configuration_igva import IgvaConfig
    from igva.model.modeling_igva import IgvaForConditionalGeneration, IgvaModel
    from igva.model.processing_igva import IgvaProcessor

    AutoConfig.register(IgvaConfig.model_type, IgvaConfig, exist_ok=True)
    AutoModel.register(IgvaConfig, IgvaModel, exist_ok=True)
    AutoModelForImageTextToText.register(IgvaConfig, IgvaForConditionalGeneration, exist_ok=True)
    AutoModelForCausalLM.register(IgvaConfig, IgvaForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(IgvaConfig, IgvaProcessor, exist_ok=True)


def register_with_transformers() -> None:
    """Register now if transformers is loaded, else right after it has been."""
    if LIBRARY in sys.modules:
        register()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds transformers as the finders behind it would, and has it followed by the registration."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != LIBRARY:
            return None
        for finder in [each for each in sys.meta_path if each is not self]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Followed(spec.loader)
                return spec
        return None


class _Followed(Loader):
    """A loader that registers once the module has run, and otherwise leaves all to the one it wraps."""

    def __init__(self, loader: Loader):
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader  # it is asked for the module's source and files
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        sys.meta_path[:] = [each for each in sys.meta_path if not isinstance(each, _Finder)]
        register()
