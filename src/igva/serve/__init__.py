"""The model behind an API: OpenAI's chat completions, a page to look at, vLLM for scale."""
