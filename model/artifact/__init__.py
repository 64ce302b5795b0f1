"""An artifact is one version of a model: its files and the card that describes them."""
