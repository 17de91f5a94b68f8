"""Scoring: any reward model over any file, fast, exact and resumable."""
