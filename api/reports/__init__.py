"""The HTML reports: templates and one style sheet for all of them, and the report of a job."""
