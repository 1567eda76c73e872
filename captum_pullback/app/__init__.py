"""The app: pullbacks in a browser. `question` and `work` know no page, `page` no mathematics."""
