"""What runs inside a kernel's process, loaded by path: nothing of it can be imported there."""
