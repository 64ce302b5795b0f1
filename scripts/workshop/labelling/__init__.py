"""The labelling page and the conversion of tables of labels."""
