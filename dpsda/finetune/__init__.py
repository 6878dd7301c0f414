"""DP fine-tuning: a language model or a classifier trained on private texts by DP-SGD or DP-Adam, and texts from it.

options     what can be set
planning    steps, sampling rate and noise from the budget
membership  who is in a step's batch, from the operating system's entropy
tokens      private texts as arrays of tokens, and batches of about one length
generator   the causal language model and its loss; labels as a control prefix
classifier  the encoder with a classification head, and its test
adapter     LoRA, and what is left of a training: an adapter or a model in the format of its library
gradients   per-sample gradients (opacus), clipped and summed
training    the loop, one reservation in the ledger a checkpoint
labels      the noisy label counts
sampling    texts from a trained generator, shard by shard
"""
