"""The stack of `orders up`: embedded servers, child processes, their supervisor, and the descriptor `stack.json`."""
