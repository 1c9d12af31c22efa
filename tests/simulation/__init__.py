"""A deterministic simulator of the daemon: networks, disks, threads and clocks that a seed drives."""
