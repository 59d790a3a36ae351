"""What a workflow has done, as a page and as Markdown."""
