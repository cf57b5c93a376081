"""What people look at: pages, figures, summaries."""
