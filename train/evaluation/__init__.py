"""One evaluation, from its settings to its files, and the check of its numbers; imports `train.output` and below."""
