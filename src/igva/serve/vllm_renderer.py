"""``IgvaRenderer``: chat messages → prompt tokens and instruction, as ``IgvaProcessor.apply_chat_template`` makes them.

vLLM's own renderer hands a prompt on without the messages, so the question could only be guessed from the rendered
text; and it reads special tokens that a user typed as special tokens. Here the processor itself does both.
"""

from __future__ import annotations

from copy import deepcopy
from threading import Lock
from typing import Any

from vllm.renderers.chat_utils import parse_chat_messages, parse_chat_messages_async
from vllm.renderers.hf import HfRenderer, resolve_chat_template_kwargs
from vllm.utils.async_utils import make_async

from igva.model.processing_igva import IgvaProcessor

TURNS = "_igva_turns"  # key of a prompt that carries a chat's instruction to the processor


class IgvaRenderer(HfRenderer):
    """Renders chats with the checkpoint's processor; raw prompts go vLLM's usual way."""

    def __init__(self, config: Any, tokenizer: Any) -> None:
        super().__init__(config, tokenizer)
        # A fast tokenizer keeps options between calls: a copy for chats alone, used by one thread at a time.
        shared = self.get_mm_processor().info.get_hf_processor()
        assert isinstance(shared, IgvaProcessor)
        self._chats: IgvaProcessor = deepcopy(shared)
        self._lock = Lock()
        self._prompt_async = make_async(self._prompt, executor=self._executor)

    # --- what vLLM asks ---------------------------------------------------------------------------------------

    def render_messages(self, messages: Any, params: Any) -> tuple[Any, Any]:
        """Messages → what vLLM calls the conversation (pictures as ``{"type": "image"}``), and its prompt."""
        conversation, data, uuids = parse_chat_messages(messages, self.model_config, **_parsing(params))
        return conversation, self._prompt(conversation, data, uuids, params)

    async def render_messages_async(self, messages: Any, params: Any) -> tuple[Any, Any]:
        conversation, data, uuids = await parse_chat_messages_async(messages, self.model_config, **_parsing(params))
        prompt = await self._render_with_timeout(self._prompt_async(conversation, data, uuids, params))
        return conversation, prompt

    def _process_tokens(self, prompt: Any, **options: Any) -> Any:
        return super()._process_tokens(_with_instructions(prompt), **options)

    async def _process_tokens_async(self, prompt: Any, **options: Any) -> Any:
        return await super()._process_tokens_async(_with_instructions(prompt), **options)

    # --- inside -----------------------------------------------------------------------------------------------

    def _prompt(self, conversation: Any, data: Any, uuids: Any, params: Any) -> dict[str, Any]:
        """Prompt tokens (placeholders not expanded yet), the pictures, and the user turns."""
        options = params.get_apply_chat_template_kwargs()
        template = options.pop("chat_template", None)
        for name in ("tokenize", "return_dict"):  # tokens always come from the processor
            options.pop(name, None)
        with self._lock:
            processor = self._chats
            known = template or processor.chat_template or processor.tokenizer.chat_template or ""
            options = resolve_chat_template_kwargs(processor.tokenizer, known, options)
            ids = processor.chat_tokens(conversation, template, **options)
            turns = processor.user_turns(conversation)
        prompt: dict[str, Any] = {"prompt_token_ids": ids, TURNS: turns}
        if data is not None:
            prompt["multi_modal_data"] = data
        if uuids is not None:
            prompt["multi_modal_uuids"] = uuids
        return prompt


def _parsing(params: Any) -> dict[str, Any]:
    return {
        "content_format": "openai",  # typed items: the processor knows what its template wants
        "media_io_kwargs": params.media_io_kwargs,
        "mm_processor_kwargs": params.mm_processor_kwargs,
    }


def _with_instructions(prompt: Any) -> Any:
    """The prompt with its chat's user turns as the processor's ``instructions``, unless the client gave others."""
    turns = prompt.pop(TURNS, None)
    if turns is not None:
        prompt["mm_processor_kwargs"] = {"instructions": turns, **(prompt.get("mm_processor_kwargs") or {})}
    return prompt
