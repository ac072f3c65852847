"""THE table of fusion methods: name → class. A new method is one file and one line here."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from .fusion_base import Fusion, FusionDims
from .fusion_deepstack import DeepStackFusion
from .fusion_dense import DenseDciFusion, DenseSciFusion, DenseStiFusion
from .fusion_external import ExternalDirectFusion
from .fusion_igva import IgvaFusion
from .fusion_igva_concat import IgvaConcatFusion
from .fusion_mean import MeanFusion
from .fusion_mmfuser import MMFuserFusion
from .fusion_mol import MolHybridFusion, MolLayerFusion, MolPatchFusion
from .fusion_single import SingleFusion
from .fusion_tgif import TgifFusion

_FUSIONS: dict[str, type[Fusion]] = {}


def register_fusion(name: str, fusion: type[Fusion]) -> None:
    """Add a method under an exact name.

    Raises:
        ValueError: the name is taken.
    """
    if name in _FUSIONS:
        raise ValueError(f"fusion {name!r} is registered already ({_FUSIONS[name].__name__})")
    _FUSIONS[name] = fusion


def fusion_names() -> list[str]:
    """Every registered name, those of installed packages (entry-point group ``igva.fusions``) included."""
    _load_entry_points()
    return sorted(_FUSIONS)


def fusion_class(name: str) -> type[Fusion]:
    """The class of a name.

    Raises:
        ValueError: no such fusion; the message lists the names there are.
    """
    if name not in _FUSIONS:
        _load_entry_points()
    if name not in _FUSIONS:
        raise ValueError(f"there is no fusion {name!r}: choose from {', '.join(fusion_names())}")
    return _FUSIONS[name]


def build_fusion(name: str, kwargs: dict[str, Any], dims: FusionDims) -> Fusion:
    """Check ``kwargs`` against the method's own config and build it.

    Raises:
        ValueError: an unknown name or option, or options that do not fit the tower.
    """
    cls = fusion_class(name)
    return cls(cls.config_class.from_kwargs(name, kwargs), dims)


def _load_entry_points() -> None:
    for entry in entry_points(group="igva.fusions"):
        if entry.name not in _FUSIONS:
            register_fusion(entry.name, entry.load())


register_fusion("deepstack", DeepStackFusion)
register_fusion("dense_dci", DenseDciFusion)
register_fusion("dense_sci", DenseSciFusion)
register_fusion("dense_sti", DenseStiFusion)
register_fusion("external_direct", ExternalDirectFusion)
register_fusion("igva", IgvaFusion)
register_fusion("igva_concat", IgvaConcatFusion)
register_fusion("mean", MeanFusion)
register_fusion("mmfuser", MMFuserFusion)
register_fusion("mol_hybrid", MolHybridFusion)
register_fusion("mol_layer", MolLayerFusion)
register_fusion("mol_patch", MolPatchFusion)
register_fusion("single", SingleFusion)
register_fusion("tgif", TgifFusion)
