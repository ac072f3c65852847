"""Chat templates for language models that bring none, or one that says more than a picture needs.

Each of them only appends: what a message adds stays as it is when others follow, so that the assistant's part can be
found (``labels.py``). The assistant's turn starts where the generation prompt ends.
"""

# The turns alone. SmolLM2's own template adds a system prompt to every chat.
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# LLaVA-1.5's conversation "v1", the system prompt included (Vicuna-1.5 has no template of its own). No space follows
# </s>: llava/conversation.py, SeparatorStyle.TWO.
VICUNA_V1 = (
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% else %}"
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions.{% endif %} "
    "{% for m in messages %}{% if m['role'] == 'user' %}USER: {{ m['content'] }} "
    "{% elif m['role'] == 'assistant' %}ASSISTANT: {{ m['content'] }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)

# Llama 3's turns. The own template of 3.1 and later adds a date and a system prompt to every chat.
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)

# Qwen3 without thinking: an empty thought belongs to the prompt of every answer. Qwen3's own template writes one into
# the last answer only, and takes it out again when another turn follows.
QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}"
)

# LLaVA's stage 1: the picture, then its caption, no roles; the line break ends the caption.
PLAIN = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<image>' * m['content'].count('<image>') }}"
    "{% else %}{{ m['content'] }}\n{% endif %}{% endfor %}"
)

TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "plain": PLAIN, "qwen3": QWEN3, "vicuna_v1": VICUNA_V1}
