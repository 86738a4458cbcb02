"""Whether the nodes of a cluster can be used, tried out from the outside and on each of them.

here     facts of a machine, gathered by a process on it
lines    TCP between machines: whether one reaches another, and how many bytes a second
pairs    which nodes try which, so that no node is left out and none asked too often. Pure
asking   the process that is Ray's driver for this: started, asked, ended

It changes nothing, but for an object in a remote blob store that is removed at once, and a small
file in a shared folder of blobs, which is removed as well. `home.doctor` says what it means.
"""
