"""What a person reads: the live view, Markdown, tables, highlighted code."""
