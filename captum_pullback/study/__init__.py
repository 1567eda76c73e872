"""What commands, app and benchmarks share: methods, scores, metrics, loading, reports."""
