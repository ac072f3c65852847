"""Serving: the vLLM plug-in."""
