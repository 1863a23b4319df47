"""The model: address spaces and trees rebuilt from system calls by the kernel's rules."""
