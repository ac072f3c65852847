"""The IGVA model: vision tower → layer means → fusion by the instruction → projector → language model.

Letters: ``I`` images in the batch, ``B`` samples, ``T`` taps or user turns, ``K`` layer groups, ``N'`` visual
tokens per image, ``D`` vision width, ``E`` instruction width, ``H`` language-model width, ``S`` tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPooling, ModelOutput
from transformers.utils import can_return_tuple

from .configuration_igva import IgvaConfig
from .fusion_base import FusionOutput
from .fusions import build_fusion
from .instruction_encoder import encode_instructions
from .projector import build_projector
from .vision_ensemble import EnsembleVisionConfig
from .vision_layers import Tap, VisionLayers, encoder_blocks, position_arguments, run_tower

# The inputs that have one row per image, not per sample.
IMAGE_INPUTS = (
    "pixel_values",
    "layer_patches",
    "layer_descriptors",
    "instruction_input_ids",
    "instruction_attention_mask",
    "instruction_embeds",
)


@dataclass
class IgvaImageFeatures(BaseModelOutputWithPooling):
    """What ``get_image_features`` returns.

    Attributes:
        pooler_output: one ``(N', H)`` tensor per image, ready for the language model.
        fusion_weights: ``(I, K)`` or ``(I, N, K)``, or None where the fusion has none.
        aux_loss: scalar, or None.
        layer_patches, layer_descriptors: ``(I, T, N, D)`` and ``(I, T, D)``, the layer means before the fusion.
            They depend on the image alone: keep them to ask again without running the tower.
        injections: language-model layer → ``(I, N', H)`` to be added there; None where the fusion has none.
    """

    fusion_weights: Tensor | None = None
    aux_loss: Tensor | None = None
    layer_patches: Tensor | None = None
    layer_descriptors: Tensor | None = None
    injections: dict[int, Tensor] | None = None


@dataclass
class IgvaModelOutputWithPast(ModelOutput):
    """Output of ``IgvaModel``: the language model's, and how the layers were mixed."""

    last_hidden_state: Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    image_hidden_states: Tensor | None = None
    fusion_weights: Tensor | None = None
    aux_loss: Tensor | None = None


@dataclass
class IgvaCausalLMOutputWithPast(ModelOutput):
    """Output of ``IgvaForConditionalGeneration``.

    Attributes:
        loss: the language-model loss; while training, the fusion's ``aux_loss`` is added.
        logits: ``(B, S, V)``.
        fusion_weights: ``(I, K)`` or ``(I, N, K)``; None without images or where the fusion has none.
        aux_loss: the added part, already multiplied by its coefficient.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    image_hidden_states: Tensor | None = None
    fusion_weights: Tensor | None = None
    aux_loss: Tensor | None = None


class IgvaPreTrainedModel(PreTrainedModel):
    config_class = IgvaConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # Fusion and projector start from their modules' own defaults (PyTorch's, as in the published code).
        # transformers guards torch.nn.init while this runs, so that what came from a file is left alone. It calls
        # this only for modules that hold parameters themselves.
        if isinstance(module, nn.MultiheadAttention):
            module._reset_parameters()
        elif callable(reset := getattr(module, "reset_parameters", None)):
            reset()


class IgvaModel(IgvaPreTrainedModel):
    """The model without a language-model head."""

    def __init__(self, config: IgvaConfig):
        super().__init__(config)
        self.vision_tower = AutoModel.from_config(config.vision_config)
        self.instruction_encoder = (
            AutoModel.from_config(config.instruction_config) if config.instruction_config is not None else None
        )
        self.fusion = build_fusion(config.fusion, config.fusion_kwargs or {}, config.fusion_dims())
        self.projector = build_projector(config, self.fusion)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def train(self, mode: bool = True) -> IgvaModel:
        """As ``nn.Module.train``, but frozen encoders keep their dropout off: BERT's would blur the question."""
        super().train(mode)
        for encoder in (self.vision_tower, self.instruction_encoder):
            if encoder is not None and not any(parameter.requires_grad for parameter in encoder.parameters()):
                encoder.eval()
        return self

    def encode_image_layers(self, pixel_values: Tensor, taps: Sequence[Tap] | None = None) -> VisionLayers:
        """Run the vision tower: ``(I, 3, height, width)`` → the layer means the fusion asks for, or those of ``taps``.

        They depend on the image and the tower alone, so they can be cached across questions.
        """
        config = self.config
        taps = self.fusion.taps if taps is None else taps
        if config.vision.model_type == EnsembleVisionConfig.model_type:
            extra: dict[str, Any] = {"layers": sorted({layer for tap in taps for layer in tap})}
        else:
            extra = position_arguments(config.vision, config.input_size)
        tower_dtype = next(self.vision_tower.parameters()).dtype
        return run_tower(
            self.vision_tower,
            pixel_values.to(tower_dtype),
            taps,
            num_layers=config.vision.num_hidden_layers,
            num_patches=config.num_patches,
            pool=config.vision_pool,
            **extra,
        )

    def encode_instruction(self, instruction_input_ids: Tensor, instruction_attention_mask: Tensor) -> Tensor:
        """``(I, T, S)`` tokens of the user turns → ``(I, E)``, the mean over the turns.

        Raises:
            ValueError: the model was saved without an instruction encoder.
        """
        if self.instruction_encoder is None:
            raise ValueError("this model has no instruction encoder: pass instruction_embeds (images, width) instead")
        return encode_instructions(
            self.instruction_encoder,
            instruction_input_ids,
            instruction_attention_mask,
            pooling=self.config.instruction_pooling,
            normalize=self.config.instruction_normalize,
        )

    def get_image_features(
        self,
        pixel_values: Tensor | None = None,
        instruction_input_ids: Tensor | None = None,
        instruction_attention_mask: Tensor | None = None,
        instruction_embeds: Tensor | None = None,
        layer_patches: Tensor | None = None,
        layer_descriptors: Tensor | None = None,
        **kwargs: Any,
    ) -> IgvaImageFeatures:
        """Images and their instructions → what the language model sees.

        Args:
            pixel_values: ``(I, 3, height, width)``, or None where cached layer means are given.
            instruction_input_ids, instruction_attention_mask: ``(I, T, S)``, one row per image.
            instruction_embeds: ``(I, E)`` in their place.
            layer_patches, layer_descriptors: cached layer means, as an earlier call returned them; no tower runs.

        Raises:
            ValueError: neither pixels nor layer means, or an instruction is missing or of the wrong number of rows.
        """
        if layer_patches is not None and layer_descriptors is not None:
            layers = VisionLayers(layer_patches, layer_descriptors)
        elif pixel_values is not None:
            layers = self.encode_image_layers(pixel_values)
        else:
            raise ValueError("pass pixel_values, or layer_patches and layer_descriptors of an earlier call")
        instruction = None
        if self.fusion.needs_instruction:
            if instruction_embeds is None and instruction_input_ids is not None:
                if instruction_attention_mask is None:
                    instruction_attention_mask = torch.ones_like(instruction_input_ids)
                instruction_embeds = self.encode_instruction(instruction_input_ids, instruction_attention_mask)
            instruction = self._check_instruction(instruction_embeds, images=layers.patches.shape[0])
        weight = self.projector.linear_1.weight
        layers = layers.to(device=weight.device, dtype=weight.dtype)
        mixed = self.mix(layers, instruction)
        visual_tokens = self.projector(mixed.features)  # (I, N', H)
        return IgvaImageFeatures(
            pooler_output=list(visual_tokens),
            fusion_weights=mixed.weights,
            aux_loss=mixed.aux_loss,
            layer_patches=layers.patches,
            layer_descriptors=layers.descriptors,
            injections=mixed.injections,
        )

    def mix(self, layers: VisionLayers, instruction: Tensor | None) -> FusionOutput:
        """What the projector reads: the fusion of the layer means, normalised where the config says so."""
        mixed: FusionOutput = self.fusion(layers.normalized() if self.config.normalize_layers else layers, instruction)
        return mixed

    def _check_instruction(self, instruction: Tensor | None, images: int) -> Tensor:
        if instruction is None:
            raise ValueError(
                f"fusion {self.config.fusion!r} is guided by the question: pass instruction_input_ids "
                "(images, turns, tokens) or instruction_embeds (images, width)"
            )
        if instruction.shape[0] != images:
            raise ValueError(f"{images} images but {instruction.shape[0]} instructions: give one row per image")
        weight = self.projector.linear_1.weight
        return instruction.to(device=weight.device, dtype=weight.dtype)

    def get_placeholder_mask(self, input_ids: Tensor | None, inputs_embeds: Tensor, image_features: Tensor) -> Tensor:
        """Where the visual tokens go, ``(B, S, H)`` of bool.

        Raises:
            ValueError: placeholders and visual tokens differ in number; the message has both.
        """
        if input_ids is None:
            image_id = torch.tensor(self.config.image_token_id, device=inputs_embeds.device)
            mask = (inputs_embeds == self.get_input_embeddings()(image_id)).all(-1)
        else:
            mask = input_ids == self.config.image_token_id
        placeholders, tokens = int(mask.sum()), image_features.shape[0]
        if placeholders != tokens:
            raise ValueError(
                f"the text has {placeholders} image placeholders but the images give {tokens} visual tokens "
                f"({self.fusion.num_tokens} per image)"
            )
        return mask[..., None].expand_as(inputs_embeds).to(inputs_embeds.device)

    # Not to be compiled: a graph keeps the hooks it was traced with. Steps from the cache come past this, compiled.
    @torch.compiler.disable
    def _inject(self, injections: dict[int, Tensor], mask: Tensor, **inputs: Any) -> Any:
        """Run the language model, adding ``(I, N', H)`` to outputs of its layers where ``mask (B, S, H)`` is true."""
        blocks: Any = encoder_blocks(self.language_model, self.config.text_config.num_hidden_layers)
        with ExitStack() as undo:
            for layer, features in injections.items():
                block, add = blocks[layer], partial(_add_at, mask, features)
                if block.training and getattr(block, "gradient_checkpointing", False):
                    # added outside of what backward runs again; hooks are inside or outside, by transformers' version
                    checkpoint = block._gradient_checkpointing_func
                    block._gradient_checkpointing_func = partial(_add_after, add, checkpoint)
                    undo.callback(setattr, block, "_gradient_checkpointing_func", checkpoint)
                else:
                    undo.callback(block.register_forward_hook(lambda _, args, out, add=add: add(out)).remove)
            return self.language_model(**inputs)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        instruction_input_ids: Tensor | None = None,
        instruction_attention_mask: Tensor | None = None,
        instruction_embeds: Tensor | None = None,
        layer_patches: Tensor | None = None,
        layer_descriptors: Tensor | None = None,
        mm_encoder_outputs: dict[str, IgvaImageFeatures] | None = None,
        dummy_image: bool = False,
        **kwargs: Any,
    ) -> IgvaModelOutputWithPast:
        """Embed the text, put the visual tokens into their places, run the language model.

        Args:
            input_ids: ``(B, S)``; the place of each visual token holds ``image_token_id``.
            mm_encoder_outputs: ``{"image": get_image_features(...)}``, instead of the image inputs.
            dummy_image: the image inputs stand for nothing and have no placeholders. They pass through every module
                and count zero times: devices that train together must all run, and reduce, the same modules.
            The image inputs are those of ``get_image_features``; their rows follow the placeholders' order.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("pass either input_ids or inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)  # (B, S, H)

        image = (mm_encoder_outputs or {}).get("image")
        if image is None and (pixel_values is not None or layer_patches is not None):
            image = self.get_image_features(
                pixel_values,
                instruction_input_ids=instruction_input_ids,
                instruction_attention_mask=instruction_attention_mask,
                instruction_embeds=instruction_embeds,
                layer_patches=layer_patches,
                layer_descriptors=layer_descriptors,
            )

        visual_tokens, mask, injections = None, None, None
        if image is not None:
            visual_tokens = torch.cat(list(image.pooler_output)).to(inputs_embeds.device, inputs_embeds.dtype)
        if image is not None and visual_tokens is not None and dummy_image:
            for unused in (visual_tokens, *(image.injections or {}).values()):
                inputs_embeds = inputs_embeds + 0 * unused.sum()
            image, visual_tokens = None, None
        elif image is not None and visual_tokens is not None:
            mask = self.get_placeholder_mask(input_ids, inputs_embeds, visual_tokens)
            inputs_embeds = inputs_embeds.masked_scatter(mask, visual_tokens)
            injections = image.injections

        inputs = {
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "past_key_values": past_key_values,
            "inputs_embeds": inputs_embeds,
            **kwargs,
        }
        outputs = self._inject(injections, mask, **inputs) if injections else self.language_model(**inputs)
        return IgvaModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=visual_tokens,
            fusion_weights=image.fusion_weights if image is not None else None,
            aux_loss=image.aux_loss if image is not None else None,
        )


def _add_at(mask: Tensor, features: Tensor, output: Any) -> Any:
    hidden = output[0] if isinstance(output, tuple) else output  # (B, S, H)
    added = torch.zeros_like(hidden).masked_scatter(mask.to(hidden.device), features.to(hidden))
    return (hidden + added, *output[1:]) if isinstance(output, tuple) else hidden + added


def _add_after(add: Callable[[Any], Any], checkpoint: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return add(checkpoint(*args, **kwargs))


class IgvaForConditionalGeneration(IgvaPreTrainedModel, GenerationMixin):
    """The model with a language-model head: answers questions about pictures, the layers mixed by the question."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: IgvaConfig):
        super().__init__(config)
        self.model = IgvaModel(config)
        text = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)  # type: ignore[union-attr]
        self.post_init()

    @property
    def language_model(self) -> nn.Module:
        return self.model.language_model

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.lm_head = value  # type: ignore[assignment]

    def get_image_features(self, pixel_values: Tensor | None = None, **kwargs: Any) -> IgvaImageFeatures:
        """See ``IgvaModel.get_image_features``."""
        return self.model.get_image_features(pixel_values, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        instruction_input_ids: Tensor | None = None,
        instruction_attention_mask: Tensor | None = None,
        instruction_embeds: Tensor | None = None,
        layer_patches: Tensor | None = None,
        layer_descriptors: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        supervised_logits_only: bool = False,
        mm_encoder_outputs: dict[str, IgvaImageFeatures] | None = None,
        **kwargs: Any,
    ) -> IgvaCausalLMOutputWithPast:
        """Logits, and with ``labels`` the loss.

        Args:
            labels: ``(B, S)``, −100 where nothing is predicted.
            logits_to_keep: how many logits from the end (0: all), or an index of positions.
            num_items_in_batch, num_images_in_batch: what the loss and the fusion's ``aux_loss`` are averaged over
                when this is a part of a larger batch: all its supervised tokens, and all its images.
            supervised_logits_only: with ``labels``, compute logits only where something is predicted: ``logits``
                is then ``(1, M, V)``, the supervised positions in reading order. The loss is the same; a short
                answer after a long prompt costs a fraction of the head.
        """
        # Names that only the loss understands must not reach the language model.
        loss_kwargs = {"num_items_in_batch": kwargs.pop("num_items_in_batch", None)}
        num_images_in_batch = kwargs.pop("num_images_in_batch", None)
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            instruction_input_ids=instruction_input_ids,
            instruction_attention_mask=instruction_attention_mask,
            instruction_embeds=instruction_embeds,
            layer_patches=layer_patches,
            layer_descriptors=layer_descriptors,
            mm_encoder_outputs=mm_encoder_outputs,
            **kwargs,
        )
        hidden = outputs.last_hidden_state  # (B, S, H)
        shift_labels = None
        if labels is not None and supervised_logits_only:
            targets = nn.functional.pad(labels[:, 1:], (0, 1), value=-100)  # what position i predicts
            supervised = targets != -100
            hidden, shift_labels = hidden[supervised][None], targets[supervised][None]
        else:
            keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            hidden = hidden[:, keep]
        logits = self.lm_head(hidden)
        aux_loss = outputs.aux_loss
        if aux_loss is not None and num_images_in_batch is not None:
            weights = outputs.fusion_weights
            aux_loss = aux_loss * (weights.shape[0] / num_images_in_batch)

        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits,
                labels=labels,
                vocab_size=self.config.text_config.vocab_size,
                shift_labels=shift_labels,
                **loss_kwargs,
            )
            if self.training and aux_loss is not None:
                loss = loss + aux_loss.to(loss.device)
        return IgvaCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=outputs.image_hidden_states,
            fusion_weights=outputs.fusion_weights,
            aux_loss=aux_loss,
        )

    # --- generation -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """``GenerationMixin.generate``; the images are encoded once, before the first token, whatever the beams."""
        image_inputs = {name: kwargs.pop(name) for name in IMAGE_INPUTS if name in kwargs}
        has_images = any(image_inputs.get(name) is not None for name in ("pixel_values", "layer_patches"))
        if has_images and kwargs.get("mm_encoder_outputs") is None:
            kwargs["mm_encoder_outputs"] = {"image": self.get_image_features(**image_inputs)}
        return super().generate(*args, **kwargs)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        mm_encoder_outputs: dict[str, IgvaImageFeatures] | None = None,
        is_first_iteration: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids, is_first_iteration=is_first_iteration, **kwargs
        )
        # Once the prompt is in the cache its visual tokens are too; without a cache every step needs them again.
        if is_first_iteration or not kwargs.get("use_cache", True):
            inputs["mm_encoder_outputs"] = mm_encoder_outputs
        return inputs

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[Tensor | None, dict[str, Any]]:
        """Repeat every sample ``expand_size`` times; a sample's images stay together and in order."""
        encoded = model_kwargs.pop("mm_encoder_outputs", None)
        image = (encoded or {}).get("image")
        if expand_size > 1 and image is not None and input_ids is not None:
            per_image = self.model.fusion.num_tokens
            counts = ((input_ids == self.config.image_token_id).sum(-1) // per_image).tolist()  # images per sample
            order, start = [], 0
            for count in counts:
                order += list(range(start, start + count)) * expand_size
                start += count
            weights, injections = image.fusion_weights, image.injections
            encoded = {
                "image": IgvaImageFeatures(
                    pooler_output=[image.pooler_output[i] for i in order],
                    fusion_weights=weights[order] if weights is not None else None,
                    injections=(
                        {layer: features[order] for layer, features in injections.items()} if injections else None
                    ),
                )
            }
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size,
            is_encoder_decoder=is_encoder_decoder,
            input_ids=input_ids,
            **model_kwargs,
        )
        if encoded:
            model_kwargs["mm_encoder_outputs"] = encoded
        return input_ids, model_kwargs
