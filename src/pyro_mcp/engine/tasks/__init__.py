"""Tasks: persistent machines with a workspace, a history of commands, and a keeper that ends them in time."""
