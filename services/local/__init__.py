"""The embedded stack: Postgres, Redis, S3, Triton and our own processes as supervised children."""
