"""Sampling: several completions of every prompt, from a policy in this process or a server."""
