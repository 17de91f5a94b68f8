"""Calls of chat models through any OpenAI-compatible endpoint, each paid once."""
