"""The pages that a run is shown by."""
