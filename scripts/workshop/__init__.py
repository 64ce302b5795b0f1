"""From pictures on the web to a model that is ready to deploy: collect, label, train, evaluate."""
