"""
A world for the relay to be tried in: its clock, network, disk, upstreams and standbys, all out of one seed.

The relay in it is the real one, from the sender to the segment writer.  What happens is
decided by one random number generator, so a run is repeated by repeating its seed.
"""
