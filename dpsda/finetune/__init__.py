"""DP fine-tuning: a language model or a classifier trained on private texts by DP-SGD or DP-Adam, and texts from it.

options     what can be set
planning    steps, sampling rate and noise from the budget
membership  who is in a step's batch, from the operating system's entropy
classifier  the encoder with a classification head, and its test
gradients   per-sample gradients (opacus), clipped and summed
training    the loop, one reservation in the ledger a checkpoint
sampling    texts from a trained generator, shard by shard
"""
