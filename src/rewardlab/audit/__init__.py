"""The causal audit: how much an attribute of a response causes its reward (RATE)."""
