"""Show a store to people: summaries, history, figures, the HTML page."""
