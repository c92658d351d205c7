"""Who may what: the API tokens of labs, and the borders between labs in the object store and in SQL."""
