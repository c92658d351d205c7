"""The Celery worker: tasks of a few lines that call `services`, and the life of their processes."""
