"""Uploads, thumbnails, kept features and result files: in a folder, in Redis or on S3."""
