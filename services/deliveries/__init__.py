"""Results on their way to a lab's LIMS: each message is sent until it is taken, or stops where a person can see it."""
