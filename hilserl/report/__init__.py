"""What came of a run, for a person: the learning curve, one page that needs nothing else, several runs side by side."""
