"""Encoders of timm, where the extra ``timm`` is installed: their configuration and their weights.

transformers wraps them (``TimmWrapperModel``); a layer is an entry of timm's ``forward_intermediates``, from 1.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from igva.errors import UserError, first_line

TIMM = "timm:"


def check_timm(where: str) -> None:
    """Raise ``UserError`` where timm is not installed."""
    if importlib.util.find_spec("timm") is None:
        raise UserError(f"{where} needs the package timm: pip install 'igva[timm]'")


def timm_settings(where: str, image_size: int | None) -> tuple[Any, int, list[float], list[float]]:
    """What timm knows of a model, without its weights.

    Args:
        where: ``timm:NAME``.
        image_size: side of the square input; default: that of the pretrained weights.

    Returns:
        Its ``TimmWrapperConfig``, the side of its input, and mean and standard deviation of its pixels.

    Raises:
        UserError: timm is missing, or knows no such model.
    """
    check_timm(where)
    import timm
    from transformers import TimmWrapperConfig

    name = where.removeprefix(TIMM)
    if not timm.is_model(name.partition(".")[0]):
        raise UserError(f"timm {timm.__version__} has no model {name!r}: timm.list_models() names those it has")
    try:
        known = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        raise UserError(
            f"timm {timm.__version__} has no pretrained weights {name!r}: timm.list_pretrained() names those it has"
        ) from error
    size = image_size or int(known.input_size[-1])
    arguments = {"img_size": size} if known.fixed_input_size and size != known.input_size[-1] else None
    config = TimmWrapperConfig(architecture=name, do_pooling=False, num_labels=0, model_args=arguments)
    return config, size, [float(value) for value in known.mean], [float(value) for value in known.std]


def load_timm(where: str, config: Any) -> Any:
    """The pretrained model of ``timm:NAME`` as a ``TimmWrapperModel`` in float32.

    Raises:
        UserError: the weights cannot be fetched.
    """
    import timm
    from transformers import AutoModel

    try:
        source = timm.create_model(config.architecture, pretrained=True, num_classes=0, **(config.model_args or {}))
    except Exception as error:  # of the hub, of a mirror, of the disk
        raise UserError(f"the weights of {where} cannot be fetched: {first_line(error)}") from error
    model = AutoModel.from_config(config)
    model.timm_model.load_state_dict(source.state_dict())
    return model.eval()
