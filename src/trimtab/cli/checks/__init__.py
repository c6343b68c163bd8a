"""The checklist before training (R25): each check looks at one thing and returns lines."""
