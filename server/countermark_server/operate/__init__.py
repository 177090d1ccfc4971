"""Operate: what the operator does to a registry as a whole: make it, adopt a ceremony, run every process of it.

    initialise -> (a ceremony, elsewhere) -> adoption -> up

Law: this room is above the stations and below the command line. It starts processes and writes files; it never
moves a submission, proposes an entry of its own or signs a leaf. A station never imports it.
"""
