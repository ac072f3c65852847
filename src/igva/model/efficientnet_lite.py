"""EfficientNet-Lite, an ImageNet classifier read as a pile of maps; the last of them says in words what it sees.

Letters: ``I`` images, ``C`` channels, ``V`` classes, ``E`` width of the words layer, ``h``, ``w`` the height and width
of a map.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithNoAttention

# Stages of Lite-0: blocks, kernel, stride of the first block, expansion, output channels.
# github.com/tensorflow/tpu, models/official/efficientnet/lite (Apache-2.0).
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class EfficientNetLiteConfig(PreTrainedConfig):
    """Configuration of ``EfficientNetLiteModel``; the defaults are Lite-0.

    Its layers are counted like hidden states: 0 the stem, 1 to 7 the stages, 8 the head, 9 the words (where
    ``word_size`` is not 0).
    """

    model_type = "efficientnet_lite"

    stages: list | tuple = STAGES  # type: ignore[type-arg]
    stem_size: int = 32
    head_size: int = 1280
    num_classes: int = 1000
    word_size: int = 0  # E, channels of the words layer; 0: there is none
    image_size: int = 224
    batch_norm_eps: float = 1e-3

    @property
    def num_hidden_layers(self) -> int:
        """Maps after the stem."""
        return len(self.stages) + 1 + bool(self.word_size)

    @property
    def layer_sizes(self) -> list[int]:
        """Channels of each map, the stem's first."""
        sizes = [self.stem_size, *(stage[-1] for stage in self.stages), self.head_size]
        return sizes + [self.word_size] * bool(self.word_size)


class ConvNorm(nn.Module):
    """Convolution and batch norm, with ReLU6 unless ``linear``.

    Padding is TensorFlow's "same": at stride 2 an even side gets its odd pixel at the right and bottom.
    """

    def __init__(
        self, size_in: int, size: int, kernel: int, eps: float, stride: int = 1, groups: int = 1, linear: bool = False
    ):
        super().__init__()
        self.conv = nn.Conv2d(size_in, size, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(size, eps=eps)
        self.act = nn.Identity() if linear else nn.ReLU6()
        self.kernel, self.stride = kernel, stride

    def forward(self, maps: Tensor) -> Tensor:
        """``(I, C, h, w)`` → ``(I, C', ⌈h / stride⌉, ⌈w / stride⌉)``."""
        (up, down), (left, right) = (self._padding(side) for side in maps.shape[-2:])
        out: Tensor = self.act(self.norm(self.conv(nn.functional.pad(maps, (left, right, up, down)))))
        return out

    def _padding(self, side: int) -> tuple[int, int]:
        total = max((-(-side // self.stride) - 1) * self.stride + self.kernel - side, 0)
        return total // 2, total - total // 2


class InvertedResidual(nn.Module):
    """Widen, convolve each channel by itself, narrow; without squeeze-and-excitation."""

    def __init__(self, size_in: int, size: int, kernel: int, stride: int, expansion: int, eps: float):
        super().__init__()
        wide = size_in * expansion
        self.expand = ConvNorm(size_in, wide, 1, eps) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(wide, wide, kernel, eps, stride, groups=wide)
        self.project = ConvNorm(wide, size, 1, eps, linear=True)
        self.adds = stride == 1 and size_in == size

    def forward(self, maps: Tensor) -> Tensor:
        """``(I, C, h, w)`` → ``(I, C', h', w')``."""
        out: Tensor = self.project(self.depthwise(self.expand(maps)))
        return maps + out if self.adds else out


class WordsLayer(nn.Module):
    """At each place of the head's map, the expected word vector of the classes: ``softmax(W x + b) · T``.

    Its norm says how sure the classifier is: where the classes' vectors cancel each other out, little is left.

    Attributes:
        classifier: the network's own last layer, ``W (V, C)`` and ``b (V,)``.
        vectors: ``T (V, E)``, one row per class, a buffer.
    """

    vectors: Tensor

    def __init__(self, head_size: int, num_classes: int, word_size: int):
        super().__init__()
        self.classifier = nn.Linear(head_size, num_classes)
        self.register_buffer("vectors", torch.zeros(num_classes, word_size))

    def forward(self, head: Tensor) -> Tensor:
        """``(I, C, h, w)`` → ``(I, E, h, w)``."""
        classes = self.classifier(head.movedim(1, -1)).float().softmax(dim=-1)  # (I, h, w, V)
        return (classes.to(self.vectors.dtype) @ self.vectors).movedim(-1, 1).to(head.dtype)


class EfficientNetLiteModel(PreTrainedModel):
    """The encoder. Its convolutions and batch norms have the weights of the published classifier."""

    config_class = EfficientNetLiteConfig
    base_model_prefix = "efficientnet_lite"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    # There is no attention in it, so every way of computing that will do.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["ConvNorm", "InvertedResidual", "WordsLayer"]  # noqa: RUF012

    def __init__(self, config: EfficientNetLiteConfig):
        super().__init__(config)
        eps, size = config.batch_norm_eps, config.stem_size
        self.stem = ConvNorm(3, size, 3, eps, stride=2)
        self.stages = nn.ModuleList()
        for blocks, kernel, stride, expansion, size_out in config.stages:
            stage = nn.Sequential()
            for number in range(blocks):
                stage.append(InvertedResidual(size, size_out, kernel, 1 if number else stride, expansion, eps))
                size = size_out
            self.stages.append(stage)
        self.head = ConvNorm(size, config.head_size, 1, eps)
        self.words = WordsLayer(config.head_size, config.num_classes, config.word_size) if config.word_size else None
        self.post_init()

    def forward(
        self, pixel_values: Tensor, output_hidden_states: bool = False, **kwargs: Any
    ) -> BaseModelOutputWithNoAttention:
        """``(I, 3, height, width)`` → the last map; with ``output_hidden_states`` all maps, the stem's first."""
        maps = [self.stem(pixel_values)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        maps.append(self.head(maps[-1]))
        if self.words is not None:
            maps.append(self.words(maps[-1]))
        return BaseModelOutputWithNoAttention(
            last_hidden_state=maps[-1], hidden_states=tuple(maps) if output_hidden_states else None
        )
