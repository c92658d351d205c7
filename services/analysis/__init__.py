"""The slide pipeline, free of Celery: what a worker's task calls, and a test can call too."""
