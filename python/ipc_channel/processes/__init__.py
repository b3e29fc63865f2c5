"""How ends get into other processes: one module a way of starting one."""
