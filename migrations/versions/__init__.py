"""The revisions, each frozen: it holds all it needs, and none is edited once it has landed."""
