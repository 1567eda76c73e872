"""The linear lens over training: gates and effective weights followed from step to step."""
