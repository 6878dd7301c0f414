"""The public side: prompts in, text out. Nothing in this package ever receives a private text."""
