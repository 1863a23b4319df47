"""Recording: probes and scripts for the kernel at hand, run and looked at."""
