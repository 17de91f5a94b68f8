"""Backbones, heads and their attention; loading and saving."""
