"""Instruction-guided vision aggregator (arXiv 2501.08443): the question sets the weights of the layer groups.

Letters: ``I`` images, ``K`` layer groups, ``D`` vision width, ``E`` instruction width, ``A`` allocator width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .fusion_base import FusionDims, FusionOutput
from .fusion_mean import GroupedFusion, GroupedFusionConfig
from .vision_layers import VisionLayers


@dataclass
class IgvaFusionConfig(GroupedFusionConfig):
    """The defaults are the paper's."""

    hidden_size: int = 1024  # A
    num_blocks: int = 4  # n
    num_heads: int = 4  # of the attention from the question to the groups
    balance_coef: float = 0.02  # λ, on minus the mean entropy of the weights
    # Beyond the paper. Without a level embedding the allocator cannot tell the groups apart except by the
    # statistics of their descriptors: permuting the groups permutes nothing in the query's view.
    level_embeddings: bool = False
    # A sentence vector has length 1, so that a channel of it is about 1 / sqrt(E): beside descriptors, whose channels
    # are about 1, the question is next to nothing. A LayerNorm in front of its projection makes both alike.
    query_norm: bool = False
    # The published blocks norm the sum of question and answer after each step, and training makes their outcome the
    # same for every question. With the norms in front, what the question said goes past them to the last layer.
    pre_norm: bool = False
    uniform_start: bool = False  # the last layer starts at zero: training goes on from stage 1's plain average
    per_patch: bool = False  # every patch has weights of its own; it starts as the one set for all of them
    patch_dim: int = 64  # width in which patches are compared with the question, where per_patch is on
    temperature: float = 1.0  # of the softmax over the groups: below 1 it decides more sharply
    load_balance_coef: float = 0.0  # on how uneven the groups are used over the batch, whatever a single row does


class AllocatorBlock(nn.Module):
    """Cross-attention block, norms behind the sums; the feed-forward does not expand (as the published code has it)."""

    def __init__(self, hidden_size: int, num_heads: int):
        super().__init__()
        self.attention = nn.MultiheadAttention(hidden_size, num_heads, batch_first=True)
        self.norm_1 = nn.LayerNorm(hidden_size)
        self.feed_forward = nn.Sequential(
            nn.Linear(hidden_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, hidden_size)
        )
        self.norm_2 = nn.LayerNorm(hidden_size)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """``(I, 1, A)``, ``(I, K, A)`` → ``(I, 1, A)``."""
        query = self.norm_1(query + self.attend(query, keys))
        return self.norm_2(query + self.feed_forward(query))

    def attend(self, query: Tensor, keys: Tensor) -> Tensor:
        """What the query finds in the keys: ``(I, 1, A)``."""
        attended: Tensor = self.attention(query, keys, keys, need_weights=False)[0]
        return attended


class PreNormAllocatorBlock(AllocatorBlock):
    """The same with the norms in front of what is added, so that the query itself passes unchanged."""

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """``(I, 1, A)``, ``(I, K, A)`` → ``(I, 1, A)``."""
        query = query + self.attend(self.norm_1(query), keys)
        return query + self.feed_forward(self.norm_2(query))


class LevelEmbeddings(nn.Module):
    """A learnt vector per group, added to its key."""

    def __init__(self, num_groups: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_groups, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, keys: Tensor) -> Tensor:
        """``(I, K, A)`` → ``(I, K, A)``."""
        return keys + self.weight


class ZeroLinear(nn.Linear):
    """A linear layer that starts at zero: its softmax is uniform until training says otherwise."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class PatchLogits(nn.Module):
    """What each patch adds to the logits of its groups; a gate that starts at zero lets it in."""

    def __init__(self, hidden_size: int, vision_dim: int, width: int):
        super().__init__()
        self.query_proj = nn.Linear(hidden_size, width)
        self.key_proj = nn.Linear(vision_dim, width)
        self.gate = nn.Parameter(torch.zeros(1))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.gate)

    def forward(self, query: Tensor, patches: Tensor) -> Tensor:
        """Query ``(I, A)``, patches of the groups ``(I, K, N, D)`` → ``(I, N, K)``."""
        keys = self.key_proj(patches)  # (I, K, N, width)
        scores = torch.einsum("iw,iknw->ink", self.query_proj(query), keys) / keys.shape[-1] ** 0.5
        return self.gate * scores


class WeightAllocator(nn.Module):
    """From the instruction and the groups' descriptors, the weight of each group; per patch where that is asked for."""

    def __init__(self, config: IgvaFusionConfig, num_groups: int, vision_dim: int, instruction_dim: int):
        super().__init__()
        width = config.hidden_size
        self.query_proj = nn.Linear(instruction_dim, width)
        self.query_norm = nn.LayerNorm(instruction_dim) if config.query_norm else nn.Identity()
        # Without blocks nothing reads the descriptors: parameters of theirs would never be trained.
        self.key_proj = nn.Linear(vision_dim, width) if config.num_blocks else None
        levels = config.level_embeddings and config.num_blocks
        self.level_embeddings = LevelEmbeddings(num_groups, width) if levels else None
        block = PreNormAllocatorBlock if config.pre_norm else AllocatorBlock
        self.blocks = nn.ModuleList([block(width, config.num_heads) for _ in range(config.num_blocks)])
        self.last_norm = nn.LayerNorm(width) if config.pre_norm and config.num_blocks else nn.Identity()
        self.temperature = config.temperature
        self.to_logits = (ZeroLinear if config.uniform_start else nn.Linear)(width, num_groups)
        self.patch_logits = PatchLogits(width, vision_dim, config.patch_dim) if config.per_patch else None

    def forward(self, instruction: Tensor, descriptors: Tensor, patches: Tensor) -> Tensor:
        """``s (I, E)``, ``c (I, K, D)``, patches ``(I, K, N, D)`` → ``w (I, K)``, or ``(I, N, K)``; rows sum to 1."""
        query = self.query_proj(self.query_norm(instruction))[:, None]  # (I, 1, A)
        if self.key_proj is not None:
            keys = self.key_proj(descriptors)  # (I, K, A)
            if self.level_embeddings is not None:
                keys = self.level_embeddings(keys)
            for block in self.blocks:
                query = block(query, keys)
            query = self.last_norm(query)
        logits = self.to_logits(query[:, 0])
        if self.patch_logits is not None:
            logits = logits[:, None] + self.patch_logits(query[:, 0], patches)  # (I, N, K)
        return (logits.float() / self.temperature).softmax(dim=-1).to(logits.dtype)


def balance_loss(weights: Tensor, asked: Tensor) -> Tensor:
    """Minus the mean entropy of ``w (…, K)`` over the images that were asked about (``asked (I,)``, bool).

    The published code softmaxes the weights once more in here, which leaves the term nearly inert; this one
    does not. Zero where no image was asked about.
    """
    rows = weights.float()
    # the smallest normal number keeps log finite where a weight is exactly zero
    entropy = -(rows * rows.clamp_min(torch.finfo(rows.dtype).tiny).log()).sum(dim=-1)
    entropy = entropy.flatten(1).mean(dim=1) if entropy.dim() > 1 else entropy  # over the patches
    return -(entropy * asked).sum() / asked.sum().clamp_min(1)


def load_balance_loss(weights: Tensor, asked: Tensor) -> Tensor:
    """How unevenly the groups are used over a batch: the squared coefficient of variation of their mean weights.

    Zero where every group has the same mean, K - 1 where one has it all; a single row may be as sharp as it likes
    (the importance loss of Shazeer et al. 2017, arXiv 1701.06538, equation 7). Zero where no image was asked about.

    Args:
        weights: ``(I, K)``, or ``(I, N, K)``.
        asked: ``(I,)``, bool: which images count.
    """
    rows = weights.float()
    rows = rows.mean(dim=1) if rows.dim() == 3 else rows
    count = asked.sum()
    mean = (rows * asked[:, None]).sum(dim=0) / count.clamp_min(1)
    return (mean.square().sum() * mean.shape[0] - 1) * (count > 0)


class IgvaFusion(GroupedFusion):
    """``[base, Σ_k w_k(question, image) F_k]``."""

    config_class = IgvaFusionConfig
    needs_instruction = True
    image_dependent = True
    summary = "instruction-guided weights over the layer groups, beside the base layer"
    source = "IGVA, Pattern Recognition 170 (2025), arXiv 2501.08443"

    def __init__(self, config: IgvaFusionConfig, dims: FusionDims):
        super().__init__(config, dims)
        for name, least in (("hidden_size", 1), ("num_heads", 1), ("num_blocks", 0)):
            if getattr(config, name) < least:
                raise ValueError(f"{name} is {getattr(config, name)}: {least} or more is expected")
        if not config.temperature > 0:
            raise ValueError(f"temperature is {config.temperature}: a number above 0 is expected")
        if config.hidden_size % config.num_heads:
            raise ValueError(f"hidden_size {config.hidden_size} is not a multiple of num_heads {config.num_heads}")
        assert dims.instruction_dim is not None  # checked by Fusion
        self.allocator = WeightAllocator(config, len(self.layer_groups), dims.vision_dim, dims.instruction_dim)
        self.balance_coef = config.balance_coef
        self.load_balance_coef = config.load_balance_coef

    def forward(self, layers: VisionLayers, instruction: Tensor | None) -> FusionOutput:
        if instruction is None:
            raise ValueError("fusion 'igva' needs an instruction for every image: pass instruction_input_ids or embeds")
        groups = self.groups(layers)
        weights = self.allocator(instruction, groups.descriptors, groups.patches)
        asked = instruction.ne(0).any(dim=-1)
        aux_loss = self.balance_coef * balance_loss(weights, asked) if self.balance_coef else None
        if self.load_balance_coef:
            spread = self.load_balance_coef * load_balance_loss(weights, asked)
            aux_loss = spread if aux_loss is None else aux_loss + spread
        return FusionOutput(features=self.mix(layers, weights), weights=weights, aux_loss=aux_loss)
