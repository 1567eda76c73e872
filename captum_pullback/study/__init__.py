"""What commands, app and benchmarks share: loading, predictions, methods, scores, reports."""
