"""Training: one trainer on transformers.Trainer, and its objectives."""
