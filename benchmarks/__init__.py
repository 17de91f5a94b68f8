"""Speed and memory against peers, interleaved with the machine's own ceiling: `make bench`."""
