"""A client of the HTTP interface, for the program of a lab. It knows the interface, and nothing else of morphbatch."""
