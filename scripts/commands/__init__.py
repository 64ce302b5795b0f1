"""Subcommands of `piqueue` that need the server's packages: doctor, keys and models."""
