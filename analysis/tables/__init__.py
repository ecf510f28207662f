"""Our numbers beside the paper's, and the scores of distilled sets, as tables."""
