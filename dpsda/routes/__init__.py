"""One file a method: from plain option values to a finished run. The only rooms that put others together."""
