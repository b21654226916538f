"""From results to tables and pictures: terminal, Markdown, HTML."""
