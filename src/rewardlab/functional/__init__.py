"""The mathematics of rewardlab: pure functions on arrays and tensors.

No files, models, configuration or logging here. Every file opens with its conventions, every public function
states shapes, formula and source, and is tested against an independent truth.
"""
