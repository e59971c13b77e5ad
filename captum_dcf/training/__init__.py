r"""Fitting generators and classifiers; needs the extra ``train`` (Lightning)."""
