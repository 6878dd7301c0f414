"""What trainings of language models share, private or not.

tokens     texts as arrays of tokens, and batches of about one length
generator  the causal language model and its loss; labels as a control prefix
adapter    LoRA, and what is left of a training: an adapter or a model in the format of its library
"""
