"""The testbench: workloads that make reverse-map walks long."""
