"""The job contract that the API and the workers share."""
