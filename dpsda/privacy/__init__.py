"""The privacy core: every release that depends on private data passes through here.

mechanism   what is released, with its sensitivity and its accounting event
noise       discrete Gaussian draws from the operating system's entropy
accounting  events -> epsilon, and epsilon -> noise multiplier
ledger      what a run has spent, written before the draw
certificate what a run may claim, recomputed from its ledger

This package imports nothing else of the project, and no torch.
"""
