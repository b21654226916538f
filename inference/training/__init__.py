"""How steps are taken: the loop, optimizers, compiling, many fits as one."""
