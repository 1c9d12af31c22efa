"""A simulator of the whole daemon: its networks, disks, threads and clocks follow a seed."""
