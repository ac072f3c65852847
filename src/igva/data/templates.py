"""Chat templates for language models that bring none, or one that says more than a picture needs."""

# The turns alone. SmolLM2's own template adds a system prompt to every chat.
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# LLaVA-1.5's conversation "v1", the system prompt included (Vicuna-1.5 has no template of its own).
VICUNA_V1 = (
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% else %}"
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions.{% endif %}"
    "{% for m in messages %}{% if m['role'] == 'user' %} USER: {{ m['content'] }}"
    "{% elif m['role'] == 'assistant' %} ASSISTANT: {{ m['content'] }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)

# LLaVA's stage 1: the picture, then its caption, no roles.
PLAIN = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<image>' if '<image>' in m['content'] else '' }}"
    "{% else %}{{ m['content'] }}\n{% endif %}{% endfor %}"
)

TEMPLATES = {"chatml": CHATML, "vicuna_v1": VICUNA_V1, "plain": PLAIN}
