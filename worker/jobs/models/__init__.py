"""The model catalog: folders and buckets, downloads, copies and promotion."""
