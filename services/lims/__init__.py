"""What the program of a lab does with the service: announces batches and sends them, follows them, reads results.

Every question names the lab, so that no answer tells of another lab's batches, not even that they exist.
"""
