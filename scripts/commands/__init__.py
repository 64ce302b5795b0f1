"""Subcommands of `piqueue` that run beside the server: doctor and models."""
