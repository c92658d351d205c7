"""Everything morphbatch does, free of Celery: the worker only calls into these rooms."""
