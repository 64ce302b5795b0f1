"""Programs that a person runs in a clone, and the server-side subcommands of `piqueue`."""
