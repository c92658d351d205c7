"""The views, functions and privileges as they are now, in SQL by subject, and the comments of their columns."""
