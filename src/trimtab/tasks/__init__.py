"""Tasks: prompts and grader together, so that training and evaluation cannot disagree."""
