"""WHAT the results say: from finished runs to tidy tables, and from those to figures."""
