"""Accuracy, calibration, length bias and ignorance checks of scored pairs."""
