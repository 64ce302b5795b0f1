"""The subcommands of `piqueue` that call the API, and what they share with the server's."""
