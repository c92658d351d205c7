"""The HTTP interface for the programs of labs, version 1: thin routers over `services.lims` and the rooms beside it."""
