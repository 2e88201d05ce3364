"""HTML pages of reports and of translated folders."""
