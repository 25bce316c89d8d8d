"""How fast pruned networks are, beside what the best dense engines make of the unpruned one."""
